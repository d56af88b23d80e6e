"""The field's words: names that were replaced by them do not come back."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("singan", "launch", "datasets", "experiments")
# What was replaced, as whole identifiers (without leading underscores, in any case), and by what.
REPLACED = {
    "hop": "upsample_to_next_scale",
    "surround": "pad_border",
    "entrance": "GeneratorInputs, make_inputs",
    "opening": "ScaleSetup",
    "handover": "scale_start",
    "homes": "ImageAssignment",
    "team": "ProcessGroup",
    "only_first": "run_on_first",
    "own_rows": "local_rows",
    "form_for": "conv_impl_for",
    "form_of_run": "conv_impl_of_run",
    "inherits": "continues_previous_scale",
    "shares_passes": "batches_passes",
    "z_star": "rec_noise",
    "program_store": "executable_cache",
    "topologies": "tpu_topologies",
    "write_back": "writers",
    "moving": "animate, enlarge",
    "bounded": "size_limits",
    "holders": "owners",
    "native_output": "abort_message",
    "last_words": "exit_reason",
    "take_over": "claim_exit",
    "make_alike": "match_images",
    "check_alike": "check_comparable",
    "no_such": "NOT_APPLICABLE",
    "absent": "MISSING",
    "levers": "ablations",
    "say": "log, warn",
    "told": "log, warn",
    "found": "what it is",
}
# Rooms and files that still have words of theirs: (word, path) -> why.
KEPT = {
    ("topologies", "singan/parallel/tpu_topologies.py"): "JAX's own module",
}


def identifiers(source: str) -> Iterator[str]:
    """Yields the names, arguments, attributes, functions, classes and imported modules of a file."""
    for node in ast.walk(ast.parse(source)):
        for field in ("id", "arg", "attr", "name", "asname", "module"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield from value.split(".")


def in_words(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).strip("_").lower()


def test_the_search_sees_every_kind_of_name():
    source = "import a.team\ndef hop(told): self._found = say\nclass Opening: ..."
    assert {in_words(name) for name in identifiers(source)} >= {"team", "hop", "told", "found", "say", "opening"}


def test_replaced_names_do_not_come_back():
    back = []
    for path in (
        path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")) if not path.name.endswith("_test.py")
    ):
        place = path.relative_to(ROOT).as_posix()
        kept = {word for word, where in KEPT if place == where or place.startswith(f"{where}/")}
        names = {in_words(name) for name in [path.stem, *identifiers(path.read_text(encoding="utf-8"))]}
        back += [f"{place}: {word}, now {REPLACED[word]}" for word in sorted(names & (REPLACED.keys() - kept))]
    assert not back, "\n".join(back)
