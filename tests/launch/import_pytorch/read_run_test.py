"""Folders of the reference implementation: what is read of them, which configuration they get, what is refused."""

import math
import shutil

import jax
import numpy as np
import pytest

from launch.import_pytorch import read_run
from singan.errors import UserError

torch = pytest.importorskip("torch")

from tests.launch.import_pytorch.import_pytorch_test import Network, write_training  # noqa: E402 - needs PyTorch too


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "two birds" / "scale_factor=0.750000,alpha=10"
    write_training(folder)
    return folder


def test_both_formats_and_noise_without_its_border_read_the_same(folder, tmp_path):
    write_training(
        tmp_path / "old", [torch.tensor([1]), 0.25, np.float32(0.125)], False, _use_new_zipfile_serialization=False
    )
    new, old = read_run.read_run(folder), read_run.read_run(tmp_path / "old")
    jax.tree.map(np.testing.assert_array_equal, new.reals, old.reals)
    np.testing.assert_array_equal(new.reconstruction_noise, old.reconstruction_noise)
    for one, other in zip(new.scales, old.scales, strict=True):
        jax.tree.map(np.testing.assert_array_equal, (one.generator, one.critic), (other.generator, other.critic))
        assert one.amplitude == other.amplitude


def test_scales_that_are_not_there_yet_are_left_out(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "part")
    (tmp_path / "part/1/netG.pth").unlink()
    found = read_run.read_run(tmp_path / "part")
    assert (len(found.scales), len(found.reals)) == (1, 3)
    assert read_run.config_of(found).pyramid == read_run.config_of(read_run.read_run(folder)).pyramid


@pytest.mark.parametrize(
    ("height", "width", "max_size"),
    [
        *((256, 256, 250), (250, 250, 250), (188, 250, 250), (155, 240, 200)),
        *((166, 248, 250), (1024, 768, 250), (90, 60, 250)),
    ],
)
@pytest.mark.parametrize("min_size", [25, 18, 31])
def test_pyramids_of_the_reference_are_found(height, width, max_size, min_size):
    short = min(height, width)
    number = math.ceil(math.log(min_size / short, 0.75)) + 1
    finest = number - math.ceil(math.log(min(max_size, max(height, width)) / max(height, width), 0.75))
    factor = min(max_size / max(height, width), 1)
    h, w = math.ceil(height * factor), math.ceil(width * factor)
    ratio = (min_size / min(h, w)) ** (1 / finest)
    sizes = [(math.ceil(h * ratio**i), math.ceil(w * ratio**i)) for i in range(finest, -1, -1)]
    found = read_run.PytorchRun(None, tuple(np.zeros((*size, 1)) for size in sizes), (), np.zeros(0))  # pyright: ignore[reportArgumentType]
    config = read_run._pyramid_of(found)
    pyramid = read_run.make_pyramid(h, w, config, "reference")
    assert list(pyramid.sizes) == sizes
    assert pyramid.ratio == pytest.approx(ratio, abs=2e-4 if config.min_size == min_size else 1e-2)


def change_state(path, change):
    """Changes a file of torch.save."""
    content = torch.load(path, weights_only=False)
    torch.save(change(content), path)


def shapes(number):
    return lambda reals: [real[..., number:] for real in reals]


REFUSED = {
    "no_reals": ("reals.pth", None, r"reals\.pth does not exist"),
    "no_amplitudes": ("NoiseAmp.pth", None, r"NoiseAmp\.pth does not exist"),
    "no_critic": ("1/netD.pth", None, r"1/netD\.pth does not exist"),
    "no_noise": ("0/z_opt.pth", None, r"0/z_opt\.pth does not exist"),
    "not_a_training": ("0/netG.pth", None, "is not a folder of the reference implementation"),
    "too_few_amplitudes": ("NoiseAmp.pth", lambda value: value[:2], "2 noise amplitudes for 3 scales"),
    "amplitude_nan": ("NoiseAmp.pth", lambda value: [1, math.nan, 1], "finite ones"),
    "amplitude_first": ("NoiseAmp.pth", lambda value: [0.5, 0.1, 0.1], "the first of them 1"),
    "amplitudes_are_text": ("NoiseAmp.pth", lambda value: ["a", "b", "c"], "finite ones"),
    "reals_of_other_sizes": ("reals.pth", shapes(1), r"0/z_opt\.pth is of"),
    "reals_of_no_pyramid": ("reals.pth", lambda value: [value[0], *value[2:]], "not a pyramid of the reference"),
    "reals_of_other_channels": ("reals.pth", lambda value: [real[:, :2] for real in value], r"of 3 channels, but"),
    "reals_of_17_channels": ("reals.pth", lambda value: [real.repeat(1, 6, 1, 1)[:, :17] for real in value], "1 to 16"),
    "reals_of_0_channels": ("reals.pth", lambda value: [real[:, :0] for real in value], "1 to 16"),
    "reals_in_0_to_255": ("reals.pth", lambda value: [real * 255 for real in value], r"outside \[-1, 1\]"),
    "reals_nan": ("reals.pth", lambda value: [real * math.nan for real in value], r"outside \[-1, 1\]"),
    "reals_a_dict": ("reals.pth", lambda value: {"a": value[0]}, "not a list of images"),
    "noise_per_channel": ("0/z_opt.pth", lambda value: torch.randn(value.shape), "the same in all channels"),
    "generator_is_a_critic": ("1/netG.pth", lambda value: Network(4, False, 0).state_dict(), "another architecture"),
    "critic_of_another_width": ("1/netD.pth", lambda value: Network(8, False, 0).state_dict(), "another architecture"),
    "widths_that_shrink": ("1/netG.pth", lambda value: Network(2, True, 0).state_dict(), "do not double"),
    "layers_missing": ("1/netG.pth", lambda old: {k: old[k] for k in old if "block3" not in k}, "numbers of layers"),
    "weights_nan": ("2/netD.pth", lambda value: {k: v * math.nan for k, v in value.items()}, "not finite"),
    "weights_a_list": ("2/netD.pth", lambda value: list(value.values()), "not a state dict"),
    "a_whole_module": ("2/netD.pth", lambda value: Network(8, False, 0), r"holds tests\..*\.Network"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_together_is_refused(folder, tmp_path, case):
    name, change, message = REFUSED[case]
    shutil.copytree(folder, tmp_path / "changed")
    path = tmp_path / "changed" / name
    if change is None:
        path.unlink()
    else:
        change_state(path, change)

    def read():
        found = read_run.read_run(tmp_path / "changed")
        read_run.check_weights(found, read_run.config_of(found))

    with pytest.raises(UserError, match=message) as caught:
        read()
    assert str(tmp_path / "changed") in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_above_the_right_one_is_told_so(folder):
    with pytest.raises(UserError, match=r"0/netG\.pth in it; .*scale_factor=0\.750000,alpha=10 has one"):
        read_run.read_run(folder.parent)


def test_names_channels_and_background(folder):
    found = read_run.read_run(folder)
    image = read_run.image_of(found, "bird-1", ("a", "b", "c"), "0,none,255")
    assert (image.id, image.channels, image.value_map.background) == ("bird-1", ("a", "b", "c"), (0.0, None, 255.0))
    for arguments, message in (
        (("a b", (), "auto"), "--name=a b must be letters"),
        (("", ("a", "b"), "auto"), "--channels=a,b must be 3 different names"),
        (("", (), "grey"), "--background='grey' must be auto, none"),
    ):
        with pytest.raises(UserError, match=message):
            read_run.image_of(found, *arguments)


def test_float_images_keep_their_values(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "float")
    change_state(tmp_path / "float/reals.pth", lambda value: [real * 0.7 for real in value])
    image = read_run.image_of(read_run.read_run(tmp_path / "float"), "", (), "auto")
    assert (image.value_map.dtype, image.value_map.low, image.value_map.high) == ("float32", (-1.0,) * 3, (1.0,) * 3)
