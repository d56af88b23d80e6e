"""A comparison as a report in Weights & Biases: table, curves, bars, pictures and the configurations' differences.

Made with wandb-workspaces (the extra wandb-report), wandb's own library for this; needs the network and a key.
"""

import importlib
import re
from collections.abc import Sequence
from typing import Any

from launch.compare.compared import Compared
from launch.compare.tables import Part, remarks
from launch.compare.text import markdown
from launch.results.quality import AT_SCALES, name_of
from launch.tracking.wandb_run import one_line
from singan.errors import UserError

INSTALL = 'pip install -c constraints.txt -e ".[wandb-report]"'
CURVES = {
    "generator/reconstruction_rmse_mean": "reconstruction RMSE",
    "critic/gradient_penalty_mean": "gradient penalty",
    "generator/adversarial_mean": "generator's adversarial loss",
}


def project_of(text: str) -> tuple[str | None, str]:
    """Returns the entity, None for the key's own, and the project of ENTITY/PROJECT or PROJECT.

    Raises:
      UserError: it is neither.
    """
    if not re.fullmatch(r"(?:[\w.-]+/)?[\w.-]+", text, re.ASCII):
        raise UserError(f"--wandb_report={text!r}: give ENTITY/PROJECT, or PROJECT of the entity whose key this is")
    entity, _, project = text.rpartition("/")
    return entity or None, project


def make_report(runs: Sequence[Compared], tables: Sequence[Part], project: str, title: str) -> str:
    """Makes a report of runs that are in a wandb project; returns its address.

    Args:
      project: ENTITY/PROJECT or PROJECT.

    Raises:
      UserError: wandb-workspaces is not installed, or wandb cannot be reached or refuses.
    """
    entity, name = project_of(project)
    known = [one for one in runs if one.run_id]
    if len(known) < 2:
        raise UserError("--wandb_report needs two or more runs that have an id in wandb: workdirs or wandb paths")
    try:
        import wandb

        reports: Any = importlib.import_module("wandb_workspaces.reports.v2")  # its __init__ re-exports untyped
        expr: Any = importlib.import_module("wandb_workspaces.expr")
    except ImportError as error:
        raise UserError(f"a report in wandb needs wandb-workspaces: {INSTALL}") from error
    try:
        entity = entity or wandb.Api(timeout=20).default_entity
        ids = [one.run_id for one in known]
        runset = reports.Runset(entity=entity or "", project=name, filters=[expr.Metric("ID").isin(ids)])
        scales = sorted(
            {scale for one in known for scale in one.ends} | {h.scale for one in known for h in one.history}
        )
        groups = _panels(reports, scales)
        blocks: list[Any] = [reports.P(remark) for remark in remarks(runs)]
        blocks.append(reports.MarkdownBlock(text=markdown(runs, tables)))
        for heading, panels in groups.items():
            blocks += [reports.H2(heading), reports.PanelGrid(runsets=[runset], panels=panels)]
        description = ", ".join(one.name for one in known)
        report = reports.Report(
            entity=entity or "", project=name, title=title, description=description, width="fluid", blocks=blocks
        )
        return str(report.save().url)
    except Exception as error:  # whatever wandb raises
        raise UserError(
            f"the report in wandb project {project} cannot be made ({one_line(error)}): check the network, the project"
            " and the key (wandb login); the page on disk has the same tables and curves"
        ) from error


def _panels(reports: Any, scales: Sequence[int]) -> dict[str, list[Any]]:
    last = max(scales, default=0)
    ends = [f"scale_{last:02d}/end/{metric}_mean" for metric in ("reconstruction_rmse", *AT_SCALES)]
    quality = [
        reports.BarPlot(title=f"{name_of(end.split('/')[-1].removesuffix('_mean'))}, scale {last}", metrics=[end])
        for end in ends
    ]
    pictures = [reports.MediaBrowser(title="samples", media_keys=[f"scale_{last:02d}/samples"], num_columns=2)]
    training = [
        reports.LinePlot(
            title=f"{label}, scale {scale}", x=f"scale_{scale:02d}/scale_step", y=[f"scale_{scale:02d}/{key}"]
        )
        for key, label in CURVES.items()
        for scale in scales
    ]
    return {
        "Samples": pictures,
        "At the end of the finest scale": quality,
        "Training": training,
        "Configurations": [reports.RunComparer(diff_only=True)],
    }
