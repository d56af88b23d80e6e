"""How many patients an answer needs: the share of simulated studies whose interval lies on the right side of 0.

python -m experiments.augmentation_study.power --effect=0.02 --patients=10,20,50,100
python -m experiments.augmentation_study.power --study=runs/study/study.csv --first=stacked --second=augmented --n=2

The first takes the spreads of paired differences from flags, the second from a study that was run.
"""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

from experiments.augmentation_study.statistics import Values, estimate
from launch import cli
from launch.results.text_table import text_table
from singan.errors import UserError

EFFECT = flags.DEFINE_float("effect", 0.02, "Mean difference that is to be seen.")
PATIENTS = flags.DEFINE_list("patients", ["6", "10", "17", "30", "60", "120"], "Numbers of tested patients.")
SEEDS = flags.DEFINE_integer("seeds", 5, "Seeds of the simulated studies.", lower_bound=2)
STUDIES = flags.DEFINE_integer("studies", 300, "Simulated studies of each number.", lower_bound=10)
OF_PATIENTS = flags.DEFINE_float("of_patients", 0.04, "Standard deviation of the difference between patients.")
OF_SEEDS = flags.DEFINE_float("of_seeds", 0.01, "Between seeds.")
REST = flags.DEFINE_float("rest", 0.03, "Of what neither patient nor seed explains.")
STUDY = flags.DEFINE_string("study", "", "study.csv whose spreads take the place of the three above.")
FIRST = flags.DEFINE_string("first", "stacked", "With --study: the condition,")
SECOND = flags.DEFINE_string("second", "augmented", "less this one,")
N = flags.DEFINE_integer("n", 2, "at this number of real tiles.")
METRIC = flags.DEFINE_string("metric", "dice", "With --study: the metric.")


class Spreads(NamedTuple):
    """Standard deviations of a paired difference: between patients, between seeds, and of the rest."""

    patients: float
    seeds: float
    rest: float


def spreads_of(values: Values) -> Spreads:
    """Returns the spreads of differences by seed and patient, by analysis of variance; what comes out below 0 is 0.

    Every patient must be there in every seed, at least two of both.
    """
    table = np.array([[of[name] for name in sorted(of)] for _, of in sorted(values.items())])
    seeds, patients = table.shape
    by_seed, by_patient = table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    rest = ((table - by_seed - by_patient + table.mean()) ** 2).sum() / ((seeds - 1) * (patients - 1))
    between = [max(float(means.var(ddof=1) - rest / n), 0.0) for means, n in ((by_patient, seeds), (by_seed, patients))]
    return Spreads(between[0] ** 0.5, between[1] ** 0.5, float(rest) ** 0.5)


def power(effect: float, patients: int, seeds: int, spreads: Spreads, studies: int, seed: int = 0) -> float:
    """Returns the share of simulated studies whose 95 % interval excludes 0 on the effect's side."""
    rng = np.random.default_rng([seed, patients, seeds])
    seen = 0
    for _ in range(studies):
        table = effect + spreads.patients * rng.normal(size=(1, patients)) + spreads.seeds * rng.normal(size=(seeds, 1))
        table = table + spreads.rest * rng.normal(size=(seeds, patients))
        estimated = estimate(
            {s: {f"{p:04d}": float(value) for p, value in enumerate(row)} for s, row in enumerate(table)}, "power"
        )
        seen += estimated.low > 0 if effect > 0 else estimated.high < 0
    return seen / studies


def read_difference(path: Path, first: str, second: str, n: int, metric: str) -> Values:
    """Returns first less second by seed and patient, of a study.csv. Raises UserError where either is not in it."""
    if not path.is_file():
        raise UserError(f"--study={path} is not there: give the study.csv of a study")
    cells: dict[str, dict[tuple[int, str], float]] = {first: {}, second: {}}
    with path.open(newline="", encoding="utf-8") as file:
        for condition, size, of_metric, seed, patient, value in list(csv.reader(file))[1:]:
            if condition in cells and (int(size), of_metric) == (n, metric):
                cells[condition][int(seed), patient] = float(value)
    both = cells[first].keys() & cells[second].keys()
    seeds, patients = {seed for seed, _ in both}, {patient for _, patient in both}
    if len(both) < len(seeds) * len(patients) or len(seeds) < 2 or len(patients) < 2:
        raise UserError(f"{path} does not hold {first} and {second} at n = {n} for every seed and patient")
    return {s: {p: cells[first][s, p] - cells[second][s, p] for p in patients} for s in seeds}


def main(argv: list[str]) -> int:
    del argv
    spreads = Spreads(OF_PATIENTS.value, OF_SEEDS.value, REST.value)
    if STUDY.value:
        path = Path(STUDY.value).expanduser()
        spreads = spreads_of(read_difference(path, FIRST.value, SECOND.value, N.value, METRIC.value))
    try:
        numbers = [int(text) for text in PATIENTS.value]
    except ValueError:
        raise UserError(f"--patients={','.join(PATIENTS.value)} must be whole numbers, such as 10,20") from None
    if not EFFECT.value or min(numbers) < 2:
        raise UserError("--effect must not be 0, and --patients 2 or more")
    rows = [["patients", "share of studies that see it"]]
    for number in numbers:
        share = power(EFFECT.value, number, SEEDS.value, spreads, STUDIES.value)
        rows.append([str(number), f"{share:.0%}"])
    print(
        f"a difference of {EFFECT.value:+g}, {SEEDS.value} seeds; standard deviation {spreads.patients:.3f} between"
        f" patients, {spreads.seeds:.3f} between seeds, {spreads.rest:.3f} of the rest"
    )
    print("\n".join(text_table(rows)))
    return 0


if __name__ == "__main__":
    cli.run(main)
