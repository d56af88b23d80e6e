"""The reader study: readers' files and keys, damaged or made up; and folders of images to make one of."""

import json
from pathlib import Path

from hypothesis import strategies as st

from launch.images import image_folders
from launch.reader_study import answers, design, match_images, page, results
from singan.errors import UserError
from tests.fuzz import strategies
from tests.fuzz.areas import Area
from tests.fuzz.images import damaged_files, good_files

KEY = {
    "format": design.KEY_FORMAT,
    "study": "0123456789ab",
    "mode": "single",
    "items": [
        {
            "id": f"{n:08x}",
            "answer": ("real", "generated")[n % 2],
            "modality": "grey",
            "start_scale": n % 3,
            "practice": n == 0,
        }
        for n in range(5)
    ],
}
ANSWERS = {
    "format": answers.ANSWERS_FORMAT,
    "study": "0123456789ab",
    "reader": "reader-1",
    "experience_years": 3,
    "answers": [{"item": f"{n:08x}", "answer": "real", "confidence": 3, "milliseconds": 900.0} for n in range(1, 5)],
}


def as_file(value) -> st.SearchStrategy[bytes]:
    data = json.dumps(value).encode()
    damaged = strategies.damaged_json(value).map(lambda changed: json.dumps(changed).encode())
    nested = st.just(b"[" * 100_000 + b"]" * 100_000)
    return st.one_of(st.just(data), damaged, damaged, strategies.damage(data), nested)


def use_answers(example: tuple[bytes, list[bytes]], folder: Path) -> None:
    key_data, given = example
    (folder / "key.json").write_bytes(key_data)
    paths = [folder / f"answers-{number}.json" for number in range(len(given))]
    for path, data in zip(paths, given, strict=True):
        path.write_bytes(data)
    key = answers.read_key(folder / "key.json")
    readers = answers.read_answers(paths, key)
    if not any(reader.answers for reader in readers):
        raise UserError("nothing was answered: as launch.reader_study says")
    scores = results.summarise(key, [reader for reader in readers if reader.answers], 0)
    results.csv_text(scores)
    results.table(scores)


def use_folders(example: list[tuple[str, bytes]], folder: Path) -> None:
    """As launch.reader_study make reads them."""
    real, generated = folder / "real", folder / "generated"
    real.mkdir()
    generated.mkdir()
    for number in range(2):
        (real / f"r{number}.png").write_bytes(good_files()["colour.png"])
        (generated / f"g{number}.png").write_bytes(good_files()["colour.png"])
    for number, (name, data) in enumerate(example):
        (generated if number % 2 else real).joinpath(f"{number}{name}").write_bytes(data)
    drawn, shown = (
        image_folders.list_entries(str(generated), "generated", []),
        image_folders.list_entries(str(real), "real", []),
    )
    choice = design.choose(shown, drawn, "single", 0, 0, 0)
    images = match_images.match_images(
        [image_folders.read(entry) for entry in choice.real],
        [image_folders.read(entry) for entry in choice.generated],
        [],
        "crop",
        "common",
        0,
    )
    page.build(design.arrange(choice, images, "single", bytes(32), False), "title", 0)


AREAS = [
    Area(
        "readers' answers",
        st.tuples(as_file(KEY), st.lists(as_file(ANSWERS), min_size=1, max_size=2)),
        use_answers,
        80,
        600,
    ),
    Area("folders of a reader study", st.lists(damaged_files(), min_size=1, max_size=2), use_folders, 30, 200),
]
