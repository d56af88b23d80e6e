"""The quality of one run's samples, measured as studies report it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jax.sharding import Mesh

from launch.evaluate import of_run
from launch.evaluate.evaluation_file import Evaluation
from launch.report.page import try_write_report
from launch.workdir_lock.lock import WorkdirLock
from singan.storage.run import load_run

FAMILIES = ("swd", "random_sifid")  # and diversity and memorisation, which always are


BATCH = 64  # samples of a SinGAN in one device call


Say = Callable[[str], None]


def measure_run(path: Path, num_samples: int, start_scales: Sequence[int], seed: int, mesh: Mesh, say: Say) -> None:
    """Measures what a trained run's evaluation.json lacks, as launch.evaluate does.

    Raises:
      UserError: the run is damaged, or another process works on it.
    """
    run = load_run(path, warn=lambda text: say(f"warning: {text}"))
    if not run.ids:
        return
    settings = of_run.settings(run, num_samples, seed, FAMILIES, None)
    with WorkdirLock(path):
        found = Evaluation(path / "evaluation.json", settings, lambda text: say(f"note: {text}"))
        if not any(found.missing(run.ids, scale) for scale in start_scales):
            return
        tell = lambda text: say(f"{path.name}: {text}" if text else "")  # noqa: E731
        of_run.evaluate(run, found, run.ids, start_scales, BATCH, mesh, FAMILIES, None, tell)
        of_run.tell(run, found)
        try_write_report(path, lambda text: say(f"warning: {text}"))
