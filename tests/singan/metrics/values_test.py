import numpy as np
import pytest

from singan.errors import UserError
from singan.metrics import diversity, memorisation, modalities, nuclei, seams
from singan.metrics.values import Summary, Undefined, check_images, difference, mean, summarise

GOOD = np.zeros((2, 4, 5, 3))


def test_a_summary_keeps_the_reasons_of_what_has_no_value():
    rows = [{"a": float(number), "b": Undefined("none at all")} for number in range(11)]
    rows[0]["a"] = Undefined("the first is missing")
    found = summarise(rows)
    assert found["b"] == Undefined("none at all")
    a = found["a"]
    assert isinstance(a, Summary)
    assert (a.count, a.reasons) == (10, ("the first is missing",))
    assert (a.mean, a.p10, a.p90) == pytest.approx((5.5, 1.9, 9.1))
    assert summarise([]) == {}


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_summary_never_hides_a_broken_number(broken):
    with pytest.raises(UserError, match="a is not a finite number"):
        summarise([{"a": 1.0}, {"a": broken}])


def test_differences_and_means_of_undefined_values():
    none = Undefined("no")
    assert difference(3.0, 1.0) == 2.0
    assert difference(none, 1.0) == none
    assert difference(1.0, none) == Undefined("of the source: no")
    assert mean([1.0, 2.0]) == 1.5
    assert mean([1.0, none]) == none
    assert isinstance(mean([]), Undefined)


@pytest.mark.parametrize(
    ("samples", "image", "message"),
    [
        (GOOD[:0], GOOD[0], "no samples to measure"),
        (GOOD[0], GOOD[0], r"samples \[n, H, W, C\]"),
        (GOOD[..., :1], GOOD[0], "samples of 1 channels"),
        (np.where(np.arange(3), GOOD, np.nan), GOOD[0], "the samples hold values that are not numbers"),
        (GOOD, GOOD[0] + np.inf, "the training image holds values that are not numbers"),
        (GOOD, np.zeros((5, 5, 3)), "samples of 4x5 pixels cannot be compared"),
    ],
)
def test_images_that_cannot_be_measured(samples, image, message):
    with pytest.raises(UserError, match=message) as raised:
        check_images(samples, image, same_size=True)
    assert "\n" not in str(raised.value)


def test_images_of_other_sizes_and_types_are_taken():
    samples, image = check_images(GOOD, np.zeros((7, 5, 3), np.int64))
    assert samples.dtype == image.dtype == np.float32


def texture(seed, *shape):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def test_every_metric_has_a_definition():
    """Also in each other's company: no two families use one name."""
    samples, image = texture(0, 2, 16, 16, 2), texture(1, 16, 16, 2)
    mask = np.arange(256).reshape(16, 16) % 16 < 5
    found = nuclei.measure_nuclei(mask.astype(int), [1], image[..., 0])
    families = {
        diversity: [diversity.diversity(samples, image)],
        memorisation: memorisation.memorisation(samples, image, size=5),
        modalities: modalities.compare_modalities(samples, image, [None, -1.0], ["T1", "T2"]),
        nuclei: [nuclei.compare_nuclei(found, found)],
        seams: seams.compare_seams(samples, image, samples[0], mask),
    }
    everything = [name for family in families for name in family.DEFINITIONS]
    assert len(everything) == len(set(everything))
    for family, rows in families.items():
        for row in rows:
            assert {name.split("/")[0] for name in row} == set(family.DEFINITIONS)
