"""The long form: many odd inputs in every area, and a table of what came of them.

python -m tests.fuzz [--seed=N] [--examples=N] [AREA ...]
"""

import os
import random
import sys
import time

from absl import app, flags, logging


def main(argv: list[str]) -> int:
    # Now, since these begin JAX.
    from tests.fuzz.oracle import REFUSED, SUCCESS
    from tests.fuzz.running import FAULT, FaultsError, every_area, try_area

    logging.set_verbosity(logging.FATAL)  # as launch.cli does
    seed = SEED.value if SEED.value is not None else random.SystemRandom().randrange(2**32)
    areas = [area for area in every_area() if len(argv) < 2 or any(word in area.name for word in argv[1:])]
    print(f"seed {seed}\n\n{'area':36}{'inputs':>8}{SUCCESS:>10}{REFUSED:>18}{FAULT:>8}{'seconds':>9}", flush=True)
    totals, faults = [0, 0, 0], []
    for area in areas:
        started = time.monotonic()
        try:
            counts = try_area(area, EXAMPLES.value or area.long, seed)
        except FaultsError as error:
            faults.append(f"{area.name}: {error}")
            counts = error.counts
        row = [counts[SUCCESS], counts[REFUSED], counts[FAULT]]
        totals = [a + b for a, b in zip(totals, row, strict=True)]
        _print(area.name, row, time.monotonic() - started)
    _print("all", totals, time.process_time())
    print(*("", *faults), sep="\n")
    return int(bool(faults))


def _print(name: str, row: list[int], seconds: float) -> None:
    print(f"{name:36}{sum(row):>8}{row[0]:>10}{row[1]:>18}{row[2]:>8}{seconds:>9.1f}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    SEED = flags.DEFINE_integer("seed", None, "Of the examples; drawn where not given.", lower_bound=0)
    EXAMPLES = flags.DEFINE_integer("examples", 0, "Examples of each area; 0: as many as it takes.", lower_bound=0)
    app.run(lambda argv: sys.exit(main(argv)))
