"""From answers and key to what is reported: per reader, pooled, by start scale and by modality."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from launch.reader_study import scoring
from launch.reader_study.answers import Key, Reader
from launch.reader_study.scoring import Ratings
from launch.results.text_table import text_table
from launch.spreadsheet import csv_lines

POSITIVE = {"single": "generated", "pairs": "left"}  # what a high score means
CSV_COLUMNS = (
    "part",
    "group",
    "truth",
    "answered",
    "correct",
    "called_real",
    "called_generated",
    "accuracy",
    "wilson_low",
    "wilson_high",
    "accuracy_bootstrap_low",
    "accuracy_bootstrap_high",
    "auc",
    "auc_bootstrap_low",
    "auc_bootstrap_high",
    "seconds_lower_quartile",
    "seconds_median",
    "seconds_upper_quartile",
)

Row = dict[str, Any]


def ratings_of(key: Key, readers: Sequence[Reader]) -> Ratings:
    """Returns the answers as scores, items in the key's order."""
    wanted = POSITIVE[key.mode]
    scores = np.full((len(readers), len(key.items)), np.nan)
    for r, reader in enumerate(readers):
        for i, item in enumerate(key.items):
            if given := reader.answers.get(item):
                scores[r, i] = given.confidence if given.answer == wanted else -given.confidence
    return Ratings(np.array([item.answer == wanted for item in key.items.values()]), scores)


def summarise(key: Key, readers: Sequence[Reader], seed: int = 0) -> dict[str, Any]:
    """Returns all that scores.json holds; equal answers and seeds give equal results.

    Args:
      readers: at least one, each with at least one answer.
      seed: of the bootstrap.
    """
    ratings = ratings_of(key, readers)
    resampled = scoring.resample(ratings, seed)
    rows = []
    for r, reader in enumerate(readers):
        row = _row(key, [reader], "reader", reader.name) | {"auc": scoring.reader_auc(ratings, r)}
        row |= {"auc_bootstrap": resampled.auc_of_reader[r], "experience_years": reader.experience_years}
        rows.append(row | {"finished": len(reader.answers) == len(key.items)})
    pooled = _row(key, readers, "pooled", f"{len(readers)} reader{'s' * (len(readers) > 1)}")
    pooled |= {"accuracy_bootstrap": resampled.accuracy}
    pooled |= {"auc": scoring.mean_auc(ratings), "auc_bootstrap": resampled.auc}
    kappa, kappa_items = scoring.agreement(ratings)
    return {
        "study": key.study,
        "mode": key.mode,
        "items": len(key.items),
        "bootstrap": {"resamples": scoring.RESAMPLES, "seed": seed, "share": 0.95},
        "readers": rows,
        "pooled": pooled,
        "fleiss_kappa": kappa if math.isfinite(kappa) else None,
        "fleiss_kappa_items": kappa_items,
        "by_truth": _by_truth(key, readers),
        "by_start_scale": _groups(
            key, readers, "start_scale", lambda item: "unknown" if item.start_scale is None else str(item.start_scale)
        ),
        "by_modality": _groups(key, readers, "modality", lambda item: item.modality),
        "conclusion": _conclusion(pooled, len(readers)),
    }


def csv_text(scores: Mapping[str, Any]) -> str:
    """Returns the rows of all parts as CSV."""
    lines = []
    for row in _all_rows(scores):
        spread = dict(row)
        for name in ("wilson", "accuracy_bootstrap", "auc_bootstrap"):
            spread[f"{name}_low"], spread[f"{name}_high"] = row.get(name) or (None, None)
        quarters = row["seconds"] or (None, None, None)
        spread |= dict(zip(CSV_COLUMNS[-3:], quarters, strict=True))
        lines.append([_cell(spread.get(name)) for name in CSV_COLUMNS])
    return csv_lines(CSV_COLUMNS, lines)


def table(scores: Mapping[str, Any]) -> str:
    """Returns the terminal's table."""
    single = scores["mode"] == "single"
    head = ["", "answers", "right", "accuracy", "95 % (Wilson)", "AUC", "95 % (bootstrap)", "median time"]
    lines = [head]
    for row in (*scores["readers"], scores["pooled"]):
        share, wilson, area, spread = row["accuracy"], row["wilson"], row["auc"], row["auc_bootstrap"]
        numbers = [str(row["answered"]), str(row["correct"]), _number(share), _interval(wilson)]
        lines.append([row["group"], *numbers, _number(area), _interval(spread), _seconds(row)])
    words = ("called real", "called synthetic") if single else ("right", "wrong")
    second = [["", "answers", *words, "accuracy", "95 % (Wilson)", "median time"]]
    several = len({row["group"] for row in scores["by_modality"]}) > 1
    for row in (*scores["by_truth"], *scores["by_start_scale"], *(scores["by_modality"] if several else ())):
        counts = [row["called_real"], row["called_generated"]] if single else [row["correct"], _wrong(row)]
        name = _row_name(row)
        numbers = [str(row["answered"]), *map(str, counts), _number(row["accuracy"]), _interval(row["wilson"])]
        second.append([name, *numbers, _seconds(row)])
    pooled, kappa = scores["pooled"], scores["fleiss_kappa"]
    agreement = (
        f"Fleiss' kappa {kappa:.2f} over the {scores['fleiss_kappa_items']} items that all readers answered"
        if kappa is not None
        else "Fleiss' kappa is not defined: it needs two readers with items in common that are not all called the same"
    )
    spread = f"pooled accuracy, readers and items resampled: {_interval(pooled['accuracy_bootstrap'])}"
    return "\n".join([*text_table(lines), spread, agreement, "", *text_table(second), "", scores["conclusion"]])


def _by_truth(key: Key, readers: Sequence[Reader]) -> list[Row]:
    if key.mode == "pairs":
        return [_row(key, readers, "truth", "all pairs", truth="pair")]
    return [_row(key, readers, "truth", f"all {kind}", truth=kind) for kind in ("real", "generated")]


def _groups(key: Key, readers: Sequence[Reader], part: str, name_of: Callable[[Any], str]) -> list[Row]:
    rows = []
    # By length first, so that scale 10 comes after scale 9.
    names = sorted({name_of(item) for item in key.items.values()}, key=lambda name: (len(name), name))
    if part == "modality":
        names = list(dict.fromkeys(name_of(item) for item in key.items.values()))
    kinds = ["pair"] if key.mode == "pairs" else ["generated"] if part == "start_scale" else ["real", "generated"]
    for name in names:
        for kind in kinds:
            of = {i for i, item in key.items.items() if name_of(item) == name and kind in ("pair", item.answer)}
            if of:
                rows.append(_row(key, readers, part, name, truth=kind, of=of))
    return rows


def _row(
    key: Key, readers: Sequence[Reader], part: str, group: str, truth: str = "", of: Iterable[str] | None = None
) -> Row:
    """Returns counts, accuracy with Wilson's interval and quartiles of the seconds, of the answers to some items."""
    items = set(key.items if of is None else of)
    if truth in ("real", "generated"):
        items = {item for item in items if key.items[item].answer == truth}
    given = [(key.items[i].answer, answer) for reader in readers for i, answer in reader.answers.items() if i in items]
    correct = sum(truth == answer.answer for truth, answer in given)
    called = {name: sum(answer.answer == name for _, answer in given) for name in ("real", "generated")}
    return {
        "part": part,
        "group": group,
        "truth": truth or ("pair" if key.mode == "pairs" else "both"),
        "answered": len(given),
        "correct": correct,
        "called_real": called["real"] if key.mode == "single" else None,
        "called_generated": called["generated"] if key.mode == "single" else None,
        "accuracy": correct / len(given) if given else None,
        "wilson": scoring.wilson(correct, len(given)) if given else None,
        "seconds": scoring.quartiles([answer.seconds for _, answer in given]),
    }


def _conclusion(pooled: Row, readers: int) -> str:
    if (interval := pooled["accuracy_bootstrap"]) is None:
        return "There are too few answers for a conclusion."
    low, high = interval
    alone = "" if readers > 1 else " One reader says nothing about others."
    if low <= 0.5 <= high:
        return (
            f"The interval of the pooled accuracy ({_interval(interval)}) covers 0.50: these answers do not show that"
            f" real and synthetic images can be told apart; an accuracy of up to {high:.2f} is not ruled out.{alone}"
        )
    if low > 0.5:
        return f"Real and synthetic images were told apart more often than by chance ({_interval(interval)}).{alone}"
    return f"Synthetic images were taken for real ones more often than by chance ({_interval(interval)}).{alone}"


def _all_rows(scores: Mapping[str, Any]) -> list[Row]:
    by = ("by_truth", "by_start_scale", "by_modality")
    return [*scores["readers"], scores["pooled"], *(row for part in by for row in scores[part])]


def _row_name(row: Row) -> str:
    if row["part"] == "truth":
        return row["group"].replace("generated", "synthetic")
    kind = {"pair": "pairs", "real": "real", "generated": "synthetic"}[row["truth"]]
    return f"{kind}, {'start scale' if row['part'] == 'start_scale' else 'channels'} {row['group']}"


def _wrong(row: Row) -> int:
    return row["answered"] - row["correct"]


def _seconds(row: Row) -> str:
    return f"{row['seconds'][1]:.1f} s" if row["seconds"] else "-"


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.2f}"


def _interval(interval: tuple[float, float] | None) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else "-"


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return "" if value is None else value
