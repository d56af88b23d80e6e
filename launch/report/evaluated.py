"""The part of report.html that shows evaluation.json: metrics of all start scales, for the cohort and by image."""

import shlex
from collections.abc import Mapping

from launch.report.markup import Html, table, tag
from launch.report.sections import MAX_LISTED, command, definitions
from launch.results import quality
from launch.results.numbers import counted, shown
from launch.results.run_facts import RunFacts


def evaluation(run: RunFacts) -> list[Html]:
    """Returns the tables, or the command that measures where nothing has been measured yet."""
    evaluation_file = run.evaluation
    if evaluation_file is None:
        return [
            tag("p", "Not evaluated yet. This measures samples of every start scale and writes evaluation.json:"),
            command(shlex.join(["python", "-m", "launch.evaluate", f"--workdir={run.workdir.path}"])),
        ]
    starts = sorted(evaluation_file.cohort, key=quality.start_order)
    main, rest = quality.divided(name for start in starts for name in evaluation_file.cohort[start])
    rows = [
        [_name(metric), *(evaluation_file.cohort[start].get(metric, UNMEASURED).text() for start in starts)]
        for metric in (*main, *rest)
    ]
    head = ["mean over images [10th–90th percentile]", *map(quality.start_name, starts)]
    settings = ", ".join(
        f"{key} {shown(evaluation_file.settings[key])}" for key in SETTINGS if key in evaluation_file.settings
    )
    return [
        tag("p", f"Measured by launch.evaluate with {settings}." if settings else "Measured by launch.evaluate."),
        table(head, rows[: len(main)], "Metrics by start scale"),
        *(tag("p", note) for note in _notes(evaluation_file.cohort)),
        tag("details", tag("summary", counted(len(rest), "other metric")), table(head, rows[len(main) :], "Others"))
        if rest
        else Html(""),
        definitions(evaluation_file.definitions),
        *(_by_image(start, evaluation_file.images) for start in starts),
    ]


SETTINGS = ("num_samples", "seed", "finest_scale", "inception", "metrics")
UNMEASURED = quality.Measured(reason=quality.NOT_MEASURED)


def _name(metric: str) -> Html:
    group = quality.group_of(metric)
    return tag("span", quality.name_of(metric), " ", tag("small", group, class_="group") if group else None)


def _notes(cohort: Mapping[str, Mapping[str, quality.Measured]]) -> list[str]:
    """Returns what is to be read with care, each once."""
    said = [
        f"{quality.name_of(name)} is {value.note}" for of in cohort.values() for name, value in of.items() if value.note
    ]
    return list(dict.fromkeys(said))


def _by_image(start: str, images: Mapping[str, Mapping[str, Mapping[str, quality.Measured]]]) -> Html:
    there = {name: of[start] for name, of in images.items() if start in of}
    metrics, _ = quality.divided(metric for of in there.values() for metric in of)
    rows = [[name, *(of.get(m, UNMEASURED).text() for m in metrics)] for name, of in list(there.items())[:MAX_LISTED]]
    head = ["image", *map(quality.name_of, metrics)]
    title = f"Image by image, {quality.start_name(start)} ({counted(len(there), 'image')})"
    more = f"{MAX_LISTED} are listed; evaluation.json has all." if len(there) > MAX_LISTED else None
    listed = table(head, rows, title) if rows else tag("p", "No images.")
    return tag("details", tag("summary", title), listed, tag("p", more) if more else None)
