"""Running the areas with Hypothesis, and counting what came of them."""

import collections
import shutil
import tempfile
import traceback
import warnings
from collections.abc import Iterable
from pathlib import Path

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as with_seed

from tests.fuzz import oracle
from tests.fuzz.areas import Area

FAULT = "fault"


class FaultsError(AssertionError):
    """An area has faults: their smallest examples, and the counts until they were found."""

    def __init__(self, text: str, counts: "Counts"):
        super().__init__(text)
        self.counts = counts


class Counts(collections.Counter):
    """How often each outcome came, and every line that was said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: collections.Counter[str] = collections.Counter()


warnings.filterwarnings("ignore", message="Generating overly large repr")


def try_area(area: Area, examples: int, seed: int | None = None, shrink: bool = True) -> Counts:
    """Returns the counts of an area's outcomes.

    Args:
      seed: None tries the same examples each time.

    Raises:
      FaultsError: an example came to something else than success or one clear line; the smallest such is shown.
    """
    counts = Counts()
    area.prepare()

    @settings(
        max_examples=examples,
        derandomize=seed is None,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, *([Phase.shrink] if shrink else [])),
        verbosity=Verbosity.normal,
        report_multiple_bugs=seed is not None,
    )
    @given(area.examples)
    def check(example) -> None:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        try:
            outcome, line = oracle.judge(lambda: area.use(example, folder), area.refusals)
            oracle.whole(folder)
        except oracle.Fault:
            counts[FAULT] += 1
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        counts[outcome] += 1
        if line:
            counts.lines[line] += 1

    if seed is not None:
        check = with_seed(seed)(check)
    try:
        check()
    except BaseException as error:
        if not isinstance(error, oracle.Fault | BaseExceptionGroup):
            raise
        raise FaultsError("".join(traceback.format_exception_only(error)), counts) from error
    return counts


def every_area() -> list[Area]:
    """Returns all areas, in the order of their files."""
    from tests.fuzz import archives, bombs, configs, hostile, images, pickles, programs, studies, unreadable, workdirs

    modules: Iterable = (configs, images, bombs, pickles, archives, workdirs, unreadable, hostile, studies, programs)
    return [area for module in modules for area in module.AREAS]
