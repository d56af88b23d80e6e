"""What a working directory says of its run, read without JAX; what is missing or damaged is said and passed over."""

import dataclasses
import datetime
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from launch.results.history import ScaleHistory, read_history
from launch.results.quality import Evaluation, read_evaluation
from singan import files, links
from singan.config import Config
from singan.errors import UserError
from singan.model.pyramid import pyramid_of
from singan.storage import workdir as records
from singan.storage.origin import OtherOrigin, check_origin, origin_of
from singan.storage.workdir import ImageRecord, Workdir

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """A run as it lies in its workdir.

    Attributes:
      record: run.json.
      sizes: height and width of all scales, coarsest first; () where they cannot be told.
      finished: the scales that are done.
      diverged: where each diverged image did, 'scale 2, step 340', by id.
      undefined: why metrics of the last finished scale have no value, each reason once.
      problems: what could not be read, a line each.
    """

    workdir: Workdir
    config: Config
    images: tuple[ImageRecord, ...]
    record: Mapping[str, Any]
    sizes: tuple[tuple[int, int], ...]
    finished: tuple[int, ...]
    history: tuple[ScaleHistory, ...]
    diverged: Mapping[str, str]
    undefined: tuple[str, ...]
    evaluation: Evaluation | None
    problems: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.workdir.path.resolve().name

    @property
    def starts(self) -> list[Mapping[str, Any]]:
        """What run.json keeps of each start, the first one first."""
        return [start for start in self.record.get("starts", []) if isinstance(start, Mapping)]

    @property
    def seconds(self) -> float:
        """Wall time of the training so far, stops left out."""
        return sum(scale.seconds for scale in self.history)

    def grid(self, scale: int) -> Path | None:
        """Returns the picture of a scale's samples, if there is one."""
        path = self.workdir.scale_samples(scale) / "grid.png"
        return path if path.is_file() else None


def read_facts(path: Path) -> RunFacts:
    """Returns the facts of a workdir.

    Raises:
      UserError: there is no run here, it holds links, its configuration cannot be read, or its weights are of another
        run.
    """
    workdir, problems = Workdir(path), []
    links.check_workdir(path)
    config = records.read_config(workdir)

    def attempt(read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except OtherOrigin:
            raise
        except UserError as error:
            problems.append(str(error))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"{type(error).__name__}: {error}")
        return otherwise

    images = attempt(lambda: tuple(records.read_images(workdir)), ())
    attempt(lambda: check_origin(workdir, origin_of(config, images)) if images else [], [])
    record = attempt(lambda: _record(workdir), {})
    sizes = attempt(lambda: pyramid_of(images[0].shape, config).sizes, ()) if images else ()
    starts = [start for start in map(_seconds, record.get("starts", [])) if start is not None]
    history = attempt(lambda: tuple(read_history(workdir.metrics, starts)), ())
    ended = {scale.scale for scale in history if scale.ends}
    folders = {int(path.name) for path in path.glob("scales/*") if path.name.isdecimal()}
    done = {scale for scale in folders if records.read_done(workdir, scale) is not None}
    last = max(ended, default=-1)
    table = attempt(lambda: _last_table(path, last), [])
    return RunFacts(
        workdir,
        config,
        images,
        record,
        tuple((int(height), int(width)) for height, width in sizes),
        tuple(sorted(ended | done)),
        history,
        attempt(lambda: _diverged(workdir, record, sorted(done), last, table), {}),
        tuple(dict.fromkeys(str(row["undefined"]) for row in table if row.get("undefined"))),
        attempt(lambda: read_evaluation(path / "evaluation.json"), None),
        tuple(problems),
    )


def _record(workdir: Workdir) -> dict[str, Any]:
    """Returns run.json, with what its readers rely on: a list of starts and where images diverged."""
    record = records.read_run(workdir)
    kinds = {"starts": list, "diverged": dict}
    for key, kind in kinds.items():
        if not isinstance(record.get(key) or kind(), kind):
            raise UserError(f"{workdir.run} is damaged: its {key} are no {kind.__name__}")
    return record


def _seconds(start: Mapping[str, Any]) -> float | None:
    try:
        return datetime.datetime.fromisoformat(start["time"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None


def _last_table(path: Path, scale: int) -> list[Mapping[str, Any]]:
    """Returns the rows of tables/scale_NN.json; it is there before the scale's DONE."""
    table = path / "tables" / f"scale_{scale:02d}.json"
    return [row for row in files.read_json(table) if isinstance(row, Mapping)] if table.exists() else []


def _diverged(
    workdir: Workdir, record: Mapping[str, Any], done: list[int], last: int, table: list[Mapping[str, Any]]
) -> dict[str, str]:
    diverged: dict[str, str] = {}
    for scale in done:
        text = files.read_bytes(workdir.done(scale)).decode("utf-8")
        for match in re.finditer(r"^(\S+) \S+ diverged at step (\d+)$", text, re.MULTILINE):
            diverged[match[1]] = f"scale {scale}, step {match[2]}"
    for row in table:
        if row.get("diverged_at_step") is not None:
            diverged.setdefault(str(row["image"]), f"scale {last}, step {row['diverged_at_step']}")
    return diverged | {str(name): str(where) for name, where in (record.get("diverged") or {}).items()}


STATUS = {"finished": "finished", "running": "in progress", "stopped": "stopped, can be resumed"}
