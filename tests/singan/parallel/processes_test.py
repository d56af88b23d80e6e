"""What processes tell each other, as far as one of them shows it; tests/launch/multihost has several."""

import jax
import numpy as np
import pytest

from singan.errors import UserError
from singan.parallel.cohort import image_mesh, local_rows, replicate, shard
from singan.parallel.processes import ImageAssignment, Processes, make_process_group, shares


@pytest.mark.parametrize(("count", "processes"), [(5, 2), (4, 4), (3, 4), (0, 2), (64, 8), (1, 1)])
def test_shares_are_blocks_as_even_as_can_be(count, processes):
    found = shares(count, processes)
    assert [place for share in found for place in share] == list(range(count))
    assert len(found) == processes
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_homes_know_where_images_lie_and_stay_when_others_go():
    assignment = ImageAssignment((("a", "b", "c"), ("d", "e")), 1)
    assert (assignment.ids, assignment.own, assignment.most) == (("a", "b", "c", "d", "e"), ("d", "e"), 3)
    assert assignment.rows(4) == [0, 1, 2, 4, 5]
    left = assignment.of(["e", "b"])
    assert (left.ids, left.own, left.most) == (("b", "e"), ("e",), 1)
    assert left.rows(2) == [0, 2]
    assert assignment.of(["a"]).own == ()


def test_one_process_alone_asks_nobody():
    alone = Processes()
    marker = object()
    assert alone.all_gather(marker) == [marker]
    assert alone.broadcast(marker) is marker
    assert alone.run_on_all(lambda: marker) is marker
    assert alone.gather_arrays({"a": np.arange(3)})["a"].tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="as it is"):
        alone.run_on_all(_refuse)


def _refuse():
    raise UserError("as it is")


def test_a_team_of_one_has_all_devices_and_rows():
    mesh = image_mesh(jax.devices()[:2])
    process_group = make_process_group(Processes(), mesh, [["a", "b", "c"]])
    assert process_group.own_mesh is mesh
    placed = shard(np.arange(4.0), mesh)
    assert local_rows(placed).tolist() == [0, 1, 2, 3]
    assert replicate(placed, mesh).is_fully_replicated
    assert process_group.of(["b"]).assignment.own == ("b",)
