"""report.html of a run, written at the end of each scale and by python -m launch.report."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from launch.report import evaluated, sections
from launch.report.markup import fill, part, tag
from launch.results.numbers import counted
from launch.results.run_facts import STATUS, RunFacts, read_facts
from singan import files

NAME = "report.html"


def write_report(workdir: str | os.PathLike) -> Path:
    """Writes WORKDIR/report.html from what lies in the workdir; returns its path.

    Raises:
      UserError: there is no run in the workdir, or the page cannot be written.
    """
    path = files.as_path(workdir) / NAME
    files.write_text(path, build(read_facts(files.as_path(workdir))))
    return path


def try_write_report(workdir: str | os.PathLike, warn: Callable[[str], None]) -> None:
    """Writes the report of a run that is being trained, which nothing about its page may stop.

    Args:
      warn: told in one line what went wrong.
    """
    try:
        write_report(workdir)
    except Exception as error:  # whatever it is, training goes on
        text = " ".join(f"{type(error).__name__}: {error}".split())
        warn(f"{os.path.join(workdir, NAME)} could not be written ({text})")


def build(run: RunFacts) -> str:
    """Returns the text of the page."""
    parts = [
        ("samples", "Samples", "Samples of each scale", sections.sample_grids(run)),
        ("state", "State", "State of the run", sections.state(run)),
        ("images", "Images", "What it was trained on", sections.trained_on(run)),
        ("quality", "Quality", "How good the samples are", [evaluated.evaluation(run), sections.scale_quality(run)]),
        ("curves", "Training", "Training", [sections.curve_panels(run), sections.by_scale(run)]),
        ("diverged", "Diverged", "Images that diverged", sections.diverged(run)),
        ("configuration", "Configuration", "Configuration", sections.configuration(run)),
        ("commands", "Commands", "Make it again", sections.commands(run)),
    ]
    return page(f"{run.name}: report", run.name, _lead(run), run.problems, parts)


def page(
    title: str, heading: str, lead: str, problems: Iterable[str], parts: Iterable[tuple[str, str, str, Any]]
) -> str:
    """Returns the text of a page of this look.

    Args:
      parts: of each its id, what the link to it says, its heading, and its content.
    """
    parts, lines = list(parts), [tag("p", line) for line in problems]
    return fill(
        "report.html",
        {
            "title": title,
            "heading": heading,
            "style": part("report.css"),
            "lead": lead,
            "problems": tag("div", lines, class_="problem") if lines else "",
            "links": [(tag("a", link, href=f"#{name}"), " ") for name, link, _, _ in parts],
            "sections": [tag("section", tag("h2", heading), content, id=name) for name, _, heading, content in parts],
        },
    )


def _lead(run: RunFacts) -> str:
    shape = "×".join(map(str, run.images[0].shape[:2])) if run.images else "?"
    status = STATUS.get(str(run.record.get("status")), str(run.record.get("status", "unknown")))
    scales = f"{len(run.finished)} of {len(run.sizes) or '?'} scales done"
    return f"{counted(len(run.images), 'image')} of {shape} pixels, trained together; {status}, {scales}."
