"""python -m launch.import_pytorch: a training of the reference's kind, made here with PyTorch, becomes a run that
computes what PyTorch computes; what does not fit together is refused, and leaves nothing behind."""

import json
import math
import os
import shutil

import jax
import numpy as np
import pytest

from launch.import_pytorch import __main__ as import_pytorch
from launch.import_pytorch import read_run
from launch.import_pytorch import replay as pytorch_replay
from singan import files
from singan.errors import UserError
from singan.model.generation import apply_critic, run_trained
from singan.parallel.cohort import image_mesh
from singan.storage import workdir as records
from singan.storage.run import load_run
from singan.storage.workdir import Workdir
from tests.launch.train.train_test import Commands, assert_refused, contents

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.processes

CHANNELS, WIDTHS, BORDER = 3, (4, 4, 8), 5
HEIGHT, WIDTH, SMALLEST, FINEST = 18, 15, 11, 2
RATIO = (SMALLEST / WIDTH) ** (1 / FINEST)
SIZES = [tuple(math.ceil(side * RATIO ** (FINEST - i)) for side in (HEIGHT, WIDTH)) for i in range(FINEST + 1)]


class ConvBlock(torch.nn.Sequential):
    """Under the names that the reference gives its layers."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.add_module("conv", torch.nn.Conv2d(inputs, outputs, 3))
        self.add_module("norm", torch.nn.BatchNorm2d(outputs))
        self.add_module("LeakyRelu", torch.nn.LeakyReLU(0.2))


class Network(torch.nn.Module):
    """netG or netD of the reference, with weights and statistics as random as trained ones."""

    def __init__(self, width, is_generator, seed):
        super().__init__()
        self.is_generator = is_generator
        self.head, self.body = ConvBlock(CHANNELS, width), torch.nn.Sequential()
        for number in range(1, 4):
            self.body.add_module(f"block{number}", ConvBlock(width, width))
        last = torch.nn.Conv2d(width, CHANNELS if is_generator else 1, 3)
        self.tail = torch.nn.Sequential(last, torch.nn.Tanh()) if is_generator else last
        rng = torch.Generator().manual_seed(seed)
        for name, value in self.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=rng) - (0 if "var" in name else 0.5))
        self.eval()

    def forward(self, x, y=None):
        x = self.tail(self.body(self.head(x)))
        return x if y is None else x + y[..., BORDER:-BORDER, BORDER:-BORDER]


def pad_border(image):
    return torch.nn.functional.pad(image, (BORDER,) * 4)


def bring_up(run, scale, image):
    """The hop that the import has taken for this training: clipped, cut down to 8 bits, resized, rescaled or not."""
    rows, columns = map(torch.from_numpy, run.spec.pyramid.upsampling(scale, cropped=False))
    levels = torch.einsum("ph,bchw,qw->bcpq", rows, ((image.clamp(-1, 1) + 1) * 127.5).floor(), columns)
    largest = levels.max() if run.config.method.between_scales == "uint8_rescaled_before_crop" else 255
    height, width = SIZES[scale]
    return (2 * levels[..., :height, :width] / largest - 1).clamp(-1, 1)


def reals():
    rng = np.random.default_rng(0)
    return [
        torch.from_numpy(rng.integers(0, 256, (1, CHANNELS, *size)).astype(np.float32) / 127.5 - 1) for size in SIZES
    ]


def networks():
    return [(Network(width, True, scale), Network(width, False, 10 + scale)) for scale, width in enumerate(WIDTHS)]


AMPLITUDES = [1, torch.tensor(0.25), np.float64(0.125)]


def write_training(folder, amplitudes=AMPLITUDES, padded=True, **options):
    """Writes what the reference leaves of a training of three scales."""
    noise = torch.randn(1, 1, *SIZES[0], generator=torch.Generator().manual_seed(0))
    noise = (pad_border(noise) if padded else noise).expand(1, CHANNELS, -1, -1)
    for scale, (generator, critic) in enumerate(networks()):
        (folder / str(scale)).mkdir(parents=True)
        torch.save(generator.state_dict(), folder / str(scale) / "netG.pth", **options)
        torch.save(critic.state_dict(), folder / str(scale) / "netD.pth", **options)
        torch.save(noise if scale == 0 else pad_border(torch.zeros_like(reals()[scale])), folder / f"{scale}/z_opt.pth")
    torch.save(reals(), folder / "reals.pth", **options)
    torch.save(amplitudes, folder / "NoiseAmp.pth", **options)
    torch.save([generator for generator, _ in networks()], folder / "Gs.pth", **options)
    return noise[:, :1, BORDER:-BORDER, BORDER:-BORDER] if padded else noise[:, :1]


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "two birds" / "scale_factor=0.750000,alpha=10"
    write_training(folder)
    return folder


@pytest.fixture(scope="session")
def imported(commands, folder, tmp_path_factory):
    """The run that the command makes, its workdir, and what it said."""
    workdir = tmp_path_factory.mktemp("imported") / "run"
    # The amplitudes of the files are made up.
    result = commands.run("import_pytorch", f"--from={folder}", f"--workdir={workdir}", "--accept_mismatch")
    assert result.returncode == 0, result.stderr
    return load_run(workdir), workdir, result


def test_the_run_is_one_like_any_other(imported, folder):
    run, workdir, result = imported
    assert sorted(path.name for path in workdir.parent.iterdir()) == ["run"]
    assert run.ids == ("two_birds",)
    assert run.config.preset == "reference"
    assert list(run.spec.pyramid.sizes) == SIZES
    assert [run.spec.at(scale).width for scale in range(3)] == list(WIDTHS)
    assert json.loads((workdir / "run.json").read_text())["status"] == "finished"
    np.testing.assert_array_equal(run.pixels("two_birds"), reals()[-1][0].permute(1, 2, 0))
    record = run.record("two_birds")
    assert record.channels == ("red", "green", "blue")
    assert (record.value_map.dtype, record.value_map.high) == ("uint8", (255.0,) * 3)
    assert record.value_map.background == (None,) * 3
    for scale in range(3):
        assert records.read_done(Workdir(workdir), scale) == run.scales[scale].digests
    assert [float(trained.amplitude[0]) for trained in run.trained(run.ids)] == [1, 0.25, 0.125]
    assert str(folder) not in (workdir / "images.json").read_text()
    assert f"3 of 3 scales of two_birds are in {workdir}" in result.stdout


def test_every_scale_computes_what_pytorch_does(imported):
    run = imported[0]
    rng = torch.Generator().manual_seed(1)
    for scale, (generator, critic) in enumerate(networks()):
        noise = torch.randn(1, CHANNELS, *SIZES[scale], generator=rng)
        previous = torch.rand(1, CHANNELS, *SIZES[scale], generator=rng) * 2 - 1 if scale else torch.zeros_like(noise)
        amplitude = [1, 0.25, 0.125][scale]
        with torch.no_grad():
            expected = generator(pad_border(amplitude * noise + previous), pad_border(previous))
            scores = critic.train()(previous + noise)
        trained = jax.tree.map(lambda leaf: leaf[0], run.trained(run.ids)[scale])
        last = lambda image: image.numpy().transpose(0, 2, 3, 1)  # noqa: E731
        spec = run.spec.at(scale)
        run_scale = jax.jit(lambda *arrays, spec=spec: run_trained(spec, *arrays))
        ours = run_scale(trained, last(noise), last(previous), run.padding(run.ids)[0])
        np.testing.assert_allclose(ours, last(expected), atol=2e-5)
        variables = jax.tree.map(lambda leaf: leaf[0], run.scales[scale].weights["critic"])
        judge = jax.jit(lambda *arrays, spec=spec: apply_critic(spec, *arrays)[0])
        np.testing.assert_allclose(judge(variables, last(previous + noise)), last(scores), atol=2e-4)


def test_reconstructions_and_their_errors_are_pytorchs(imported, tmp_path):
    run, _, result = imported
    image = write_training(tmp_path / "again").expand(1, CHANNELS, -1, -1)
    np.testing.assert_array_equal(run.reconstruction_noise(run.ids)[0, 0, ..., 0], image[0, 0])
    previous, amplitudes = torch.zeros_like(image), []
    for scale, (generator, _) in enumerate(networks()):
        if scale:
            image = previous = bring_up(run, scale, image)
            amplitudes.append(0.1 * (previous - reals()[scale]).square().mean().sqrt().item())
        with torch.no_grad():
            image = generator(pad_border(image), pad_border(previous))
        ours = run.scales[scale].weights["reconstruction"][0, 0]
        np.testing.assert_allclose(ours, image[0].permute(1, 2, 0), atol=2e-5)
        error = (image - reals()[scale]).square().mean().sqrt().item()
        line = result.stdout.splitlines()[scale].split()
        assert line[:5] == ["scale", str(scale), "x".join(map(str, SIZES[scale])), "width", str(WIDTHS[scale])]
        assert float(line[9]) == pytest.approx(error, abs=1e-4)
    told = json.loads((run.workdir.path / "run.json").read_text())["imported"]
    assert told["replayed_amplitudes"] == pytest.approx([1, *amplitudes], rel=1e-4)
    assert result.stderr.startswith("warning: no known rule")
    assert result.stderr.count("\n") == 1
    # With those of such a training there is nothing to say.
    torch.save([1, *amplitudes], tmp_path / "again/NoiseAmp.pth")
    found = read_run.read_run(tmp_path / "again")
    picture = read_run.image_of(found, "", (), "auto")
    mesh = image_mesh(jax.devices()[:1])
    config, replays = pytorch_replay.choose_rule(found, read_run.config_of(found), picture, mesh)
    assert config.method.between_scales == run.config.method.between_scales
    assert [replay.amplitude for replay in replays[1:]] == pytest.approx(amplitudes, rel=1e-5)
    assert pytorch_replay.disagreement(found, config, replays) == ""


def test_samples_are_drawn_from_it(commands, imported, tmp_path):
    result = commands.run(
        "sample", f"--workdir={imported[1]}", f"--out={tmp_path}", "--num_samples=2", "--start_scales=1", "--format=npy"
    )
    assert result.returncode == 0, result.stderr
    samples = np.load(tmp_path / "start_01/two_birds.npy")
    assert samples.shape == (2, HEIGHT, WIDTH, CHANNELS)
    assert 0 <= samples.min() < samples.max() <= 255
    assert np.abs(samples[0] - samples[1]).mean() > 1


def test_a_workdir_that_holds_something_is_left_alone(commands, imported, folder):
    before = contents(imported[1])
    result = commands.run("import_pytorch", f"--from={folder}", f"--workdir={imported[1]}")
    assert_refused(result, f"--workdir={imported[1]} holds something already", "choose another")
    assert contents(imported[1]) == before


class Evil:
    def __init__(self, path):
        self.path = os.fspath(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_file_is_not_run_and_nothing_is_left(commands, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "evil")
    torch.save(Evil(tmp_path / "was_here"), tmp_path / "evil/1/netG.pth")
    result = commands.run("import_pytorch", f"--from={tmp_path / 'evil'}", f"--workdir={tmp_path / 'run'}")
    assert_refused(result, "1/netG.pth holds posix.mkdir", "run code")
    assert [path.name for path in tmp_path.iterdir()] == ["evil"]


def test_half_of_an_import_is_not_left(tmp_path):
    def write_a_part():
        with import_pytorch._made_whole(tmp_path / "runs/one") as workdir:
            records.write_done(Workdir(files.make_directory(workdir.scale(0)).parents[1]), 0, {"a": "0" * 32}, {})
            raise UserError("disk full")

    with pytest.raises(UserError, match="disk full"):
        write_a_part()
    assert list((tmp_path / "runs").iterdir()) == []
