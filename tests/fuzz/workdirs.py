"""Working directories whose files are damaged, exchanged or of other versions, as every command reads them."""

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
from hypothesis import strategies as st

from launch import selection
from launch.compare import load, page
from launch.compare import tables as compare_tables
from launch.compare import text as compare_text
from launch.evaluate.evaluation_file import Evaluation
from launch.images.find import load_images
from launch.report.page import write_report
from singan import files
from singan.config import parse
from singan.errors import UserError
from singan.model.pyramid import make_pyramid
from singan.model.spec import make_spec
from singan.parallel import cohort
from singan.parallel.cohort import image_mesh
from singan.sampling.samples import resized_spec
from singan.storage.checkpoints import ScaleCheckpoints
from singan.storage.finished_scale import FinishedScale, weights_template
from singan.storage.json_lines import JsonLines
from singan.storage.run import load_run
from singan.storage.run_record import claim_workdir
from singan.storage.workdir import Workdir, read_config, read_images, write_done
from tests.fuzz import strategies
from tests.fuzz.areas import Area
from tests.fuzz.images import good_files

RECORDS = ("config.json", "images.json", "run.json", "summary.json", "evaluation.json", "tables/scale_01.json")
ENTRY = {"mean": 0.1, "p10": 0.1, "p90": 0.2, "count": 2}
EVALUATION = {
    "format": 1,
    "settings": {"num_samples": 2, "seed": 0, "finest_scale": 1, "inception": None, "metrics": ["swd"]},
    "definitions": {"swd": "a distance"},
    "images": {"ihc_y162_x344": {"0": {"swd": ENTRY}, "1": {"swd": {"undefined": "too small"}}}},
    "cohort": {"0": {"swd": {"mean": 0.1, "p10": 0.1, "p90": 0.2, "images": 1}}, "1": {"swd": {"undefined": "none"}}},
    "pooled": {"0": {"metrics": ["swd"], "images": "0" * 32}},
}


@functools.cache
def template() -> Path:
    """A whole workdir of two images and two scales, with fresh weights; made once a process."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-template-")) / "run"
    folder.mkdir()
    config = parse(
        {
            "data": {"num_crops": 2, "crop_size": 17},
            "pyramid": {"min_size": 11, "max_size": 17, "num_scales": 2},
            "network": {"width": 2, "num_layers": 2},
            "train": {"steps_per_scale": 2, "chunk": 2},
            "tracking": {"wandb": "off"},
        }
    )
    images, workdir, mesh = load_images(config.data), Workdir(folder), image_mesh(jax.devices("cpu")[:1])
    record, ids = claim_workdir(workdir, config, images, mesh), tuple(image.id for image in images)
    spec = make_spec(config, make_pyramid(17, 17, config.pyramid), 3, "direct")
    lines, below = JsonLines(workdir.metrics), ""
    for scale in range(2):
        tree = cohort.stack([weights_template(spec.at(scale))] * 2, 2)
        with ScaleCheckpoints(workdir.checkpoints(scale), lambda text: None) as checkpoints:
            origin = {"below": below, "trained_from": record.origin.digest}
            digests = checkpoints.save(2, tree, ids, {"kind": "weights", "diverged": {}, **origin})
        write_done(workdir, scale, digests, {}, record.origin.digest)
        below = FinishedScale(ids, {}, tree, digests).fingerprint
        row = {"global_step": 2 * scale + 2, "scale": scale, "scale_step": 2}
        lines.scalars({**row, "critic/real": 0.5, "images_alive": 2, "steps_per_second": 3.0})
        lines.scalars({**row, "end/reconstruction_rmse": [0.1, 0.2], "end/noise_amplitude": [1.0, 1.0]})
        columns = {"reconstruction_rmse": 0.1, "noise_amplitude": 1.0, "diverged_at_step": None, "swd": 0.1}
        lines.table(f"scale_{scale:02d}", [{"image": name, **columns} for name in ids])
        grid = files.make_directory(workdir.scale_samples(scale)) / "grid.png"
        grid.write_bytes(good_files()["colour.png"])
    lines.summary({"diverged": 0})
    lines.close()
    record.update(workdir, status="finished", diverged={})
    (folder / "evaluation.json").write_text(json.dumps(EVALUATION))
    write_report(folder)
    return folder


@functools.cache
def names() -> list[str]:
    """The files of the template, by their path in it."""
    return sorted(path.relative_to(template()).as_posix() for path in template().rglob("*") if path.is_file())


@st.composite
def damages(draw) -> tuple[str, bytes]:
    """A file of a workdir and what it holds instead."""
    if draw(st.integers(0, 2)):
        name = draw(st.sampled_from(RECORDS))
        value = draw(strategies.damaged_json(json.loads((template() / name).read_bytes())))
        return name, json.dumps(value).encode()
    name = draw(st.sampled_from(names()))
    return name, draw(strategies.damage((template() / name).read_bytes() or b"x"))


def damaged(example: tuple[str, bytes], folder: Path) -> Path:
    name, data = example
    run = folder / "run"
    shutil.copytree(template(), run)
    (run / name).write_bytes(data)
    return run


def use_records(example: tuple[str, bytes], folder: Path) -> None:
    """What resuming, reporting, comparing and evaluating read; each refuses by itself."""
    run = damaged(example, folder)
    refused: list[UserError] = []

    def attempt(read: Any) -> None:
        try:
            read()
        except UserError as error:
            refused.append(error)

    attempt(lambda: read_config(Workdir(run)))
    attempt(lambda: read_images(Workdir(run)))
    attempt(lambda: write_report(run))
    attempt(lambda: _compare(run, template()))
    attempt(lambda: Evaluation(run / "evaluation.json", EVALUATION["settings"], lambda text: None).cohort())
    attempt(lambda: JsonLines(run / "metrics.jsonl").trim_after(1))
    if refused:
        raise refused[0]


def _compare(*places: Path) -> None:
    runs = load.load([str(place) for place in places])
    tables = compare_tables.parts(runs)
    compare_tables.to_csv(runs, tables)
    page.build(runs, tables)
    compare_text.terminal(runs, tables)
    compare_text.markdown(runs, tables)


def use_run(example: tuple[str, bytes], folder: Path) -> None:
    """What launch.sample, manipulate and evaluate read: a run with its weights."""
    run = load_run(damaged(example, folder))
    for name in selection.chosen_images(run, []):
        run.pixels(name)
        run.trained([name])
        run.padding([name])


selections = st.tuples(
    st.lists(st.one_of(st.just("ihc_y162_x344"), strategies.text), max_size=2),
    st.lists(st.one_of(strategies.integers.map(str), strategies.text), max_size=3),
    st.lists(st.one_of(strategies.floats.map(str), strategies.text), max_size=3),
)


@functools.cache
def whole_run():
    return load_run(template())


def use_selection(example: tuple[list[str], list[str], list[str]], folder: Path) -> None:
    images, scales, size = example
    run = whole_run()
    assert set(selection.chosen_images(run, images)) <= set(run.ids)
    assert set(selection.chosen_scales(run, scales or ["0"])) <= {0, 1}
    height, width = resized_spec(run.spec.at(1), selection.chosen_size(size or ["1"])).size
    assert height * width <= 2**26


AREAS = [
    Area("records of a workdir", damages(), use_records, 60, 600, prepare=template),
    Area("weights and images of a workdir", damages(), use_run, 15, 120, prepare=template),
    Area("selections", selections, use_selection, 120, 500, prepare=whole_run),
]
