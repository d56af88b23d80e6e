"""A run in Weights & Biases: what is sent of rows, pictures, tables, weights and the summary."""

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from launch.tracking.sent import Sent
from singan import files
from singan.secrets import hidden
from singan.storage.metrics_file import Row, place
from singan.storage.workdir import Workdir
from singan.text import print_warning


class Wandb:
    """Sends rows to a wandb run and never stops the caller: the first exception is a warning, three in a row end it.

    The values of a scale appear as scale_03/NAME against scale_03/scale_step; a list as its mean, min and max.
    """

    def __init__(
        self,
        run: Any,
        workdir: Path,
        logged_through: int = -1,
        warn: Callable[[str], None] | None = None,
        sent: Sent | None = None,
        at_close: Callable[[], None] = lambda: None,
    ):
        """Takes a started run; rows up to global_step `logged_through` are there already and are not sent again.

        Args:
          sent: what may be sent; everything where not given.
          at_close: called when the run's files are complete.
        """
        self._run: Any = run  # None once wandb is given up
        self._sent, self._at_close = sent or Sent(), at_close
        self._workdir, self._logged_through = workdir, logged_through
        self._warn = warn or print_warning
        self._scales: set[int] = set()
        self._warned, self._failures = False, 0
        self._try(lambda: run.define_metric("global_step"))

    def replay(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Sends rows of metrics.jsonl, with the pictures that still exist."""
        for row in rows:
            values = {key: value for key, value in row.items() if key != "pictures"}
            if "pictures" in row:
                paths = {name: self._workdir / path for name, path in row["pictures"].items()}
                self.pictures(values, {name: path for name, path in paths.items() if path.exists()})
            else:
                self.scalars(values)

    def append(self) -> None:
        """Sends rows of any step from here on, as of what is found out about a run that has finished."""
        self._logged_through = -1

    def scalars(self, row: Row) -> None:
        self._log(row, dict)

    def pictures(self, row: Row, pictures: Mapping[str, Path]) -> None:
        import wandb

        if not self._sent.pictures:
            return
        caption = f"scale {row['scale']}, step {row['scale_step']}: a row for each image, {self._sent.listed()}"
        self._log(
            place(row),
            lambda: {name: wandb.Image(_pixels(path), caption=caption) for name, path in pictures.items()},
        )

    def weights(self, scale: int) -> None:
        """Sends the weights of a finished scale, as an artifact that has a version for each time that they differ."""
        if not self._sent.weights:
            return
        import wandb

        def log() -> None:
            artifact = wandb.Artifact(f"{self._run.id}-scale_{scale:02d}", "model", metadata={"scale": scale})
            folder = Workdir(self._workdir).checkpoints(scale)
            if files.is_bucket(folder):
                artifact.add_reference(str(folder), checksum=False)
            else:
                artifact.add_dir(str(folder), name="checkpoints")
            self._run.log_artifact(artifact)

        self._try(log)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        import wandb

        def log() -> None:
            shown = self._sent.rows(rows)
            columns: list[Any] = list(dict.fromkeys(key for row in shown for key in row))
            data = [[files.plain(row.get(column)) for column in columns] for row in shown]
            self._run.log({name: wandb.Table(columns=columns, data=data)})

        self._try(log)

    def summary(self, values: Mapping[str, Any]) -> None:
        self._try(lambda: self._run.summary.update(files.plain(values)))

    def sync(self) -> None:
        """Does nothing: wandb writes in its own time, and metrics.jsonl has the rows."""

    def close(self, exit_code: int) -> None:
        self._try(lambda: self._run.finish(exit_code=exit_code))
        self._try(self._at_close)
        self._run = None

    def _log(self, row: Row, more: Callable[[], Mapping[str, Any]]) -> None:
        step = row["global_step"]
        if isinstance(step, int) and step <= self._logged_through:
            return

        def log() -> None:
            self._run.log(self._named(row, more()))

        self._try(log)

    def _named(self, row: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
        values = {key: row[key] for key in ("global_step", "scale", "time") if key in row}
        if "time" in row:
            values["_timestamp"] = row["time"]  # of what is sent again, too
        prefix = f"scale_{row['scale']:02d}"
        if row["scale"] not in self._scales:
            self._run.define_metric(f"{prefix}/*", step_metric=f"{prefix}/scale_step")
            self._scales.add(row["scale"])
        for key, value in {**row, **more}.items():
            if key in values or value is None:
                continue
            value = files.plain(value) if key in row else value
            if isinstance(value, list):
                for name, number in _statistics(value).items():
                    values[f"{prefix}/{key}_{name}"] = number
            elif value is not None:
                values[f"{prefix}/{key}"] = value
        return values

    def _try(self, action: Callable[[], Any]) -> None:
        if self._run is None:
            return
        try:
            action()
            self._failures = 0
        except Exception as error:  # whatever wandb raises, training goes on
            self._failures += 1
            if not self._warned:
                self._warned = True
                self._warn(f"wandb failed ({one_line(error)}); training and metrics.jsonl go on")
            if self._failures >= 3:
                self._run = None


def _statistics(values: list) -> dict[str, float]:
    numbers = [v for v in values if isinstance(v, int | float) and math.isfinite(v)]  # a diverged image's is None
    return {"mean": sum(numbers) / len(numbers), "min": min(numbers), "max": max(numbers)} if numbers else {}


def _pixels(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(files.read_bytes(path))) as image:
        return np.asarray(image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB"), dtype=np.uint8)


def one_line(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return hidden(text)[:200]
