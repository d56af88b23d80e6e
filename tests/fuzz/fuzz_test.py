"""Every area of tests/fuzz in a short form, the same examples each time; `python -m tests.fuzz` is the long one."""

import pytest

from tests.fuzz.running import every_area, try_area


@pytest.mark.parametrize("area", [pytest.param(area, id=area.name) for area in every_area()])
def test_odd_input_is_taken_or_refused_in_one_clear_line(area):
    counts = try_area(area, area.short)
    assert set(counts) <= {"success", "one clear line"}
    # Hypothesis may draw an example twice, and a space may be small.
    assert sum(counts.values()) >= 0.8 * area.short
    assert counts["one clear line"] > 0
