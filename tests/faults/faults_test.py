"""A few faults of `make faults` (tests/faults/__main__.py), one of each kind that is quick; and the harness itself."""

import json

import pytest

from tests.faults.damage import Damages, kind_of, names
from tests.faults.kills import Kills
from tests.faults.others import escapes, link, pipe
from tests.faults.surroundings import clock, leftovers, threads
from tests.faults.unreadable import STEP, other_orbax, unreadable
from tests.faults.world import Outcome, World, table
from tests.launch.train.train_test import Commands


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(Commands(tmp_path_factory), tmp_path_factory.mktemp("faults"))


@pytest.mark.processes
@pytest.mark.parametrize(("phase", "number"), [("chunk", "SIGKILL"), ("sampling", "SIGKILL"), ("compile", "SIGINT")])
def test_a_killed_run_ends_as_an_uninterrupted_one(world, phase, number):
    kills = Kills(world, seed=1)
    outcome = kills.one(0, phase, number)
    assert (outcome.survived, outcome.identical, outcome.note) == (True, True, "")
    if number == "SIGKILL":  # another signal lets the run come to the end of its chunk, and so into another phase
        assert kills.hit[phase] == 1


@pytest.mark.processes
def test_a_clock_that_is_set_back_changes_nothing(world):
    outcome = clock(world, 400 * 86400.0)
    assert (outcome.survived, outcome.identical, outcome.note) == (True, True, "")


@pytest.mark.processes
def test_what_others_do_to_a_run_harms_nothing(world):
    for outcome in (pipe(world, "second scale"), link(world, "scales/00/checkpoints", "link"), escapes(world)):
        assert (outcome.good, outcome.survived, outcome.note) == (True, True, ""), outcome


@pytest.mark.processes
def test_what_cannot_be_read_is_not_lost(world):
    for outcome in (
        unreadable(world, "no permission", f"{STEP}/about/metadata"),
        other_orbax(world, "with another format of arrays"),
    ):
        assert (outcome.good, outcome.identical or outcome.skipped, outcome.note) == (True, True, ""), outcome


@pytest.mark.processes
def test_another_number_of_threads_is_said_and_recorded(world):
    outcome = threads(world, 1, 2)
    assert (outcome.survived, outcome.named, outcome.note) == (True, True, "")


@pytest.mark.processes
def test_files_of_a_killed_writer_are_removed(world):
    outcome = leftovers(world)
    assert (outcome.survived, outcome.identical, outcome.note) == (True, True, "")


@pytest.mark.processes
def test_damaged_records_and_images_are_named_and_made_again(world):
    damages = Damages(world, seed=0)
    kinds = dict(damages.cases(finished=False))
    assert {"config.json", "run.json", "images.json", "images/ID.npy", "metrics.jsonl"} <= set(kinds)
    for way in ("flipped bit", "emptied"):
        outcome = damages.train("config.json", "config.json", way)
        assert (outcome.survived, outcome.identical, outcome.named) == (True, True, True), outcome
    outcome = damages.train("run.json", "run.json", "emptied")  # of what it says, nothing else knows it
    assert (outcome.survived, outcome.identical, outcome.named) == (True, False, True), outcome
    outcome = damages.train("images/ID.npy", kinds["images/ID.npy"], "flipped bit")
    assert (outcome.survived, outcome.identical, outcome.note) == (True, True, "")


def test_kinds_and_names_of_files(tmp_path):
    assert kind_of(f"scales/01/checkpoints/60/arrays/d/{'0a' * 16}") == "scales/01/checkpoints/STEP/arrays/d/DATA"
    assert kind_of("images/left.npy") == "images/ID.npy"
    assert names(f"error: {tmp_path}/config.json is", tmp_path, "config.json")
    assert names(f"checkpoint {tmp_path}/scales/01/checkpoints/60 is", tmp_path, "scales/01/checkpoints/60/arrays/d/a")
    assert not names("warning: something", tmp_path, "config.json")


def test_the_table_counts_and_names_what_did_not_hold():
    outcomes = [
        Outcome("kill", "a", survived=True, identical=True),
        Outcome("kill", "b", note="exit code 1: why"),
        Outcome("damage", "c", survived=True, named=True),
    ]
    lines = table(outcomes, {"chunk": 2}).splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["kill", "2", "1", "1", "0"],
        ["damage", "1", "1", "0", "1"],
        ["all", "3", "2", "1", "1"],
    ]
    assert lines[4:] == ["kills by phase: chunk 2", "not survived: kill, b: exit code 1: why"]
    assert json.dumps([vars(outcome) for outcome in outcomes])
