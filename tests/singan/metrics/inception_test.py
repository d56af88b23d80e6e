import jax
import numpy as np
import pytest

from singan.errors import UserError
from singan.metrics.frechet import single_image_frechet
from singan.metrics.inception import (
    LAYERS,
    MIN_SIDES,
    Inception,
    inception_features,
    inception_inputs,
    inception_sifid,
    resized,
    variable_shapes,
)
from singan.metrics.inception_weights import from_state_dict


def random_variables(seed=0):
    """Variables that keep the size of the activations, with normalisation statistics that matter."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        kind = path[-1].key
        if kind == "kernel":
            value = rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:3])), leaf.shape)
        elif kind in ("scale", "var"):
            value = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            value = rng.normal(0, 0.3, leaf.shape)
        return value.astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, variable_shapes())


def images(n, height, width, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, height, width, 3)).astype(np.float32)


def pytorch_peer(torch):
    """The network written down once more, in PyTorch and from its own description; returns a module of all layers."""
    nn, functional = torch.nn, torch.nn.functional

    class Basic(nn.Module):
        def __init__(self, inputs, outputs, **options):
            super().__init__()
            self.conv = nn.Conv2d(inputs, outputs, bias=False, **options)
            self.bn = nn.BatchNorm2d(outputs, eps=0.001)

        def forward(self, x):
            return functional.relu(self.bn(self.conv(x)))

    def average(x):
        return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)

    class A(nn.Module):
        def __init__(self, inputs, pool):
            super().__init__()
            self.branch1x1 = Basic(inputs, 64, kernel_size=1)
            self.branch5x5_1 = Basic(inputs, 48, kernel_size=1)
            self.branch5x5_2 = Basic(48, 64, kernel_size=5, padding=2)
            self.branch3x3dbl_1 = Basic(inputs, 64, kernel_size=1)
            self.branch3x3dbl_2 = Basic(64, 96, kernel_size=3, padding=1)
            self.branch3x3dbl_3 = Basic(96, 96, kernel_size=3, padding=1)
            self.branch_pool = Basic(inputs, pool, kernel_size=1)

        def forward(self, x):
            five = self.branch5x5_2(self.branch5x5_1(x))
            double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
            return torch.cat([self.branch1x1(x), five, double, self.branch_pool(average(x))], 1)

    class B(nn.Module):
        def __init__(self, inputs):
            super().__init__()
            self.branch3x3 = Basic(inputs, 384, kernel_size=3, stride=2)
            self.branch3x3dbl_1 = Basic(inputs, 64, kernel_size=1)
            self.branch3x3dbl_2 = Basic(64, 96, kernel_size=3, padding=1)
            self.branch3x3dbl_3 = Basic(96, 96, kernel_size=3, stride=2)

        def forward(self, x):
            double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
            return torch.cat([self.branch3x3(x), double, functional.max_pool2d(x, 3, stride=2)], 1)

    class C(nn.Module):
        def __init__(self, w):
            super().__init__()
            row, column = {"kernel_size": (1, 7), "padding": (0, 3)}, {"kernel_size": (7, 1), "padding": (3, 0)}
            self.branch1x1 = Basic(768, 192, kernel_size=1)
            self.branch7x7_1 = Basic(768, w, kernel_size=1)
            self.branch7x7_2 = Basic(w, w, **row)
            self.branch7x7_3 = Basic(w, 192, **column)
            self.branch7x7dbl_1 = Basic(768, w, kernel_size=1)
            self.branch7x7dbl_2 = Basic(w, w, **column)
            self.branch7x7dbl_3 = Basic(w, w, **row)
            self.branch7x7dbl_4 = Basic(w, w, **column)
            self.branch7x7dbl_5 = Basic(w, 192, **row)
            self.branch_pool = Basic(768, 192, kernel_size=1)

        def forward(self, x):
            seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
            double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
            double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
            return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(average(x))], 1)

    class D(nn.Module):
        def __init__(self):
            super().__init__()
            self.branch3x3_1 = Basic(768, 192, kernel_size=1)
            self.branch3x3_2 = Basic(192, 320, kernel_size=3, stride=2)
            self.branch7x7x3_1 = Basic(768, 192, kernel_size=1)
            self.branch7x7x3_2 = Basic(192, 192, kernel_size=(1, 7), padding=(0, 3))
            self.branch7x7x3_3 = Basic(192, 192, kernel_size=(7, 1), padding=(3, 0))
            self.branch7x7x3_4 = Basic(192, 192, kernel_size=3, stride=2)

        def forward(self, x):
            seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
            return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, functional.max_pool2d(x, 3, stride=2)], 1)

    class E(nn.Module):
        def __init__(self, inputs, maximum):
            super().__init__()
            row, column = {"kernel_size": (1, 3), "padding": (0, 1)}, {"kernel_size": (3, 1), "padding": (1, 0)}
            self.maximum = maximum
            self.branch1x1 = Basic(inputs, 320, kernel_size=1)
            self.branch3x3_1 = Basic(inputs, 384, kernel_size=1)
            self.branch3x3_2a, self.branch3x3_2b = Basic(384, 384, **row), Basic(384, 384, **column)
            self.branch3x3dbl_1 = Basic(inputs, 448, kernel_size=1)
            self.branch3x3dbl_2 = Basic(448, 384, kernel_size=3, padding=1)
            self.branch3x3dbl_3a, self.branch3x3dbl_3b = Basic(384, 384, **row), Basic(384, 384, **column)
            self.branch_pool = Basic(inputs, 192, kernel_size=1)

        def forward(self, x):
            three, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
            parts = [self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three)]
            parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
            pooled = functional.max_pool2d(x, 3, stride=1, padding=1) if self.maximum else average(x)
            return torch.cat([*parts, self.branch_pool(pooled)], 1)

    class Peer(nn.Module):
        def __init__(self):
            super().__init__()
            self.Conv2d_1a_3x3 = Basic(3, 32, kernel_size=3, stride=2)
            self.Conv2d_2a_3x3 = Basic(32, 32, kernel_size=3)
            self.Conv2d_2b_3x3 = Basic(32, 64, kernel_size=3, padding=1)
            self.Conv2d_3b_1x1 = Basic(64, 80, kernel_size=1)
            self.Conv2d_4a_3x3 = Basic(80, 192, kernel_size=3)
            self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = A(192, 32), A(256, 64), A(288, 64)
            self.Mixed_6a = B(288)
            self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = C(128), C(160), C(160), C(192)
            self.Mixed_7a, self.Mixed_7b, self.Mixed_7c = D(), E(1280, False), E(2048, True)
            self.fc = nn.Linear(2048, 1008)

        def forward(self, x):
            found = {}
            found[64] = x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
            x = functional.max_pool2d(x, 3, stride=2)
            found[192] = x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
            x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(functional.max_pool2d(x, 3, stride=2))))
            found[768] = x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
            x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
            found[2048] = functional.adaptive_avg_pool2d(x, 1)
            return found

    return Peer().eval()


def peer_with_random_weights(torch, seed=0):
    peer = pytorch_peer(torch)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in peer.state_dict().items():
            if name.endswith("conv.weight"):
                fan_in = value.shape[1] * value.shape[2] * value.shape[3]
                value.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
            elif name.endswith(("bn.weight", "running_var")):
                value.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith(("bn.bias", "running_mean")):
                value.normal_(0, 0.3, generator=generator)
    return peer


def test_all_layers_agree_with_an_independent_pytorch_implementation():
    torch = pytest.importorskip("torch")
    peer = peer_with_random_weights(torch)
    variables = from_state_dict({name: value.numpy() for name, value in peer.state_dict().items()})
    x = images(
        2, 107, 96
    )  # the last maps are 2x1: pooling at odd and even sizes, and more than one position at the end
    with torch.no_grad():
        theirs = {layer: value.numpy() for layer, value in peer(torch.from_numpy(x.transpose(0, 3, 1, 2))).items()}
    ours = jax.jit(inception_features)(variables, x)
    assert list(ours) == list(LAYERS)
    for layer in LAYERS:
        expected = theirs[layer].transpose(0, 2, 3, 1)
        expected = expected[:, 0, 0] if layer == 2048 else expected
        assert ours[layer].shape == expected.shape
        assert expected.std() > 0.05
        np.testing.assert_allclose(ours[layer], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_resizing_is_pytorchs():
    torch = pytest.importorskip("torch")
    for side in (40, 350):
        x = images(2, side, side + 7)
        size = {"size": (299, 299), "mode": "bilinear", "align_corners": False}
        theirs = torch.nn.functional.interpolate(torch.from_numpy(x.transpose(0, 3, 1, 2)), **size).numpy()
        np.testing.assert_allclose(resized(x), theirs.transpose(0, 2, 3, 1), atol=2e-5)


def test_least_sides_leave_four_by_four_positions():
    for layer in (64, 192, 768):
        for side, positions in ((MIN_SIDES[layer], 4), (MIN_SIDES[layer] - 1, 3)):
            x = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
            shapes = jax.eval_shape(lambda v, x, layer=layer: Inception().apply(v, x, (layer,)), variable_shapes(), x)
            assert shapes[layer].shape == (1, positions, positions, layer)
    smallest = jax.ShapeDtypeStruct((1, MIN_SIDES[2048], MIN_SIDES[2048], 3), np.float32)
    shapes = jax.eval_shape(lambda v, x: inception_features(v, x, (2048,)), variable_shapes(), smallest)
    assert shapes[2048].shape == (1, 2048)
    with pytest.raises(UserError, match="30x64 pixels are too small for Inception's layer 192: use at least 31"):
        inception_features(variable_shapes(), images(1, 30, 64), (192,))


def test_sifid_is_the_frechet_distance_of_the_layers_maps():
    variables = random_variables()
    x = images(3, 50, 46)
    blurred = (x[:1] + np.roll(x[:1], 1, axis=1) + np.roll(x[:1], 1, axis=2)) / 3
    samples = np.concatenate([x[:1], blurred, x[1:]])
    maps = jax.jit(inception_features, static_argnums=2)(variables, samples, (64, 192))
    for layer in (64, 192):
        values = np.asarray(jax.jit(inception_sifid, static_argnums=3)(variables, x[0], samples, layer))
        expected = np.asarray(single_image_frechet(maps[layer][0], maps[layer]))
        scale = float(np.var(np.asarray(maps[layer][0]), axis=(0, 1)).sum())
        np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-5 * scale)
        assert values[0] < 1e-5 * scale
        assert values[1] > values[2:].max()  # another draw of the same texture is nearer than a blurred copy
    with pytest.raises(UserError, match="layer 2048 has none"):
        inception_sifid(variables, x[0], samples, 2048)
    with pytest.raises(UserError, match="no Inception layer 512"):
        inception_sifid(variables, x[0], samples, 512)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["red", "green", "blue"], {"red+green+blue": [0, 1, 2]}),
        (["T1", "T2", "FLAIR"], {"T1+T2+FLAIR": [0, 1, 2]}),
        (["mask", "red", "green", "blue"], {"red+green+blue": [1, 2, 3], "mask": [0, 0, 0]}),
        (["T1", "T2"], {"T1": [0, 0, 0], "T2": [1, 1, 1]}),
    ],
)
def test_every_channel_is_looked_at_and_every_input_named(names, expected):
    x = np.random.default_rng(0).uniform(-1, 1, (2, 5, 4, len(names))).astype(np.float32)
    inputs = inception_inputs(x, names)
    assert list(inputs) == list(expected)
    for name, channels in expected.items():
        np.testing.assert_array_equal(inputs[name], x[..., channels])


def test_names_that_do_not_fit_are_refused():
    x = np.zeros((1, 4, 4, 4), np.float32)
    with pytest.raises(UserError, match="4 channels need as many different names, not a, b"):
        inception_inputs(x, ["a", "b"])
