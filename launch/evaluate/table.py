"""The few numbers of an evaluation that fit on a terminal: one line a start scale, fidelity never without the rest."""

from collections.abc import Mapping
from typing import Any

from launch.results.text_table import text_table

COLUMNS = (
    "fid",
    "random_frechet",
    "swd",
    "random_sifid",
    "sifid_64",
    "sifid_192",
    "diversity",
    "rmse",
    "nearest_patch_ratio",
    "copied",
    "feature_spread",
    "nearest_real_ratio",
)


def table(cohort: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Returns lines of text: the mean over images of each headline metric, '-' for one that is undefined, and why."""
    scales = sorted(cohort, key=int)
    shown = [name for name in COLUMNS if any(_entry(cohort[scale], name) for scale in scales)]
    lines = [["start scale", *shown]]
    reasons: list[str] = []
    for scale in scales:
        line = [scale if int(scale) >= 0 else "not known"]
        for name in shown:
            entry = _entry(cohort[scale], name)
            line.append(f"{entry['mean']:.4g}" if "mean" in entry else "-")
            if "undefined" in entry:
                reasons.append(f"{name} has no value: {entry['undefined']}")
            if "note" in entry:
                reasons.append(f"{name} is {entry['note']}")
        lines.append(line)
    return "\n".join([*text_table(lines, ">"), *dict.fromkeys(reasons)])


def _entry(entries: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """Returns a metric's entry, or that of its first part (fid/red+green+blue), or {}."""
    return entries.get(name) or next((e for key, e in entries.items() if key.split("/")[0] == name), {})
