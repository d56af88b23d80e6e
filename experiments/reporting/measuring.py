"""The quality of one run's samples, measured as studies report it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jax.sharding import Mesh

from launch.evaluate import of_run
from launch.evaluate.evaluation_file import Evaluation
from launch.report.page import try_write_report
from singan.storage.run import load_run
from singan.storage.workdir_lock.lock import WorkdirLock

FAMILIES = ("swd", "random_sifid")  # and diversity and memorisation, which always are


BATCH = 64  # samples of a SinGAN in one device call


Log = Callable[[str], None]


def measure_run(path: Path, num_samples: int, start_scales: Sequence[int], seed: int, mesh: Mesh, log: Log) -> None:
    """Measures what a trained run's evaluation.json lacks, as launch.evaluate does.

    Raises:
      UserError: the run is damaged, or another process works on it.
    """
    run = load_run(path, warn=lambda text: log(f"warning: {text}"))
    if not run.ids:
        return
    settings = of_run.settings(run, num_samples, seed, FAMILIES, None)
    with WorkdirLock(path):
        evaluation = Evaluation(path / "evaluation.json", settings, lambda text: log(f"note: {text}"))
        if not any(evaluation.missing(run.ids, scale) for scale in start_scales):
            return
        log_run = lambda text: log(f"{path.name}: {text}" if text else "")  # noqa: E731
        of_run.evaluate(run, evaluation, run.ids, start_scales, BATCH, mesh, FAMILIES, None, log_run)
        of_run.tell(run, evaluation)
        try_write_report(path, lambda text: log(f"warning: {text}"))
