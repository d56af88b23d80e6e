"""The peer of the benchmark: one SinGAN training step in plain PyTorch, as a textbook would write it.

The same networks, losses, optimisers and number of updates as the reference method: three critic updates with the
pixelwise gradient penalty, three generator updates with a freshly computed fake. The critic's updates each draw a pass
through the frozen scales where these are given; the previous image is given otherwise. Needs the extra `bench` (torch).
"""

import time
from collections.abc import Callable, Sequence

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

AMPLITUDE = 0.1  # of the noise


class Block(nn.Sequential):
    """Convolution -> BatchNorm -> LeakyReLU, without padding."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(nn.Conv2d(inputs, outputs, 3), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True))


class Critic(nn.Module):
    def __init__(self, channels: int, width: int):
        super().__init__()
        self.net = nn.Sequential(
            Block(channels, width), *(Block(width, width) for _ in range(3)), nn.Conv2d(width, 1, 3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Generator(nn.Module):
    def __init__(self, channels: int, width: int):
        super().__init__()
        self.net = nn.Sequential(
            Block(channels, width), *(Block(width, width) for _ in range(3)), nn.Conv2d(width, channels, 3), nn.Tanh()
        )

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.net(x) + y[:, :, 5:-5, 5:-5]


def initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1, 0.02)


def seconds_per_step(
    real: torch.Tensor,
    previous: torch.Tensor,
    width: int,
    min_seconds: float = 2.0,
    frozen: Sequence[tuple[int, int, int]] = (),
) -> float:
    """Returns the median seconds of one training step at one scale, the first two steps not counted.

    Args:
      real, previous: [1, C, H, W] in [-1, 1], on the device to be timed.
      width: hidden channels of both networks.
      min_seconds: three steps are timed, and more until this is reached.
      frozen: height, width and hidden channels of the scales below, coarsest first, whose generators draw the previous
        image of each critic update; where there are none, `previous` stands for what they would draw.
    """
    channels = real.shape[1]
    generator, critic = (net(channels, width).to(real.device).apply(initialise) for net in (Generator, Critic))
    generator_adam = torch.optim.Adam(generator.parameters(), lr=5e-4, betas=(0.5, 0.999))
    critic_adam = torch.optim.Adam(critic.parameters(), lr=5e-4, betas=(0.5, 0.999))
    padded_previous = _padded(previous)
    generators = [Generator(channels, features).to(real.device).apply(initialise).eval() for *_, features in frozen]

    def draw() -> torch.Tensor:
        if not frozen:
            return padded_previous
        sizes = [(height, width) for height, width, _ in frozen]
        return _padded(_random_pass(generators, [*sizes, tuple(real.shape[2:])], real))

    times: list[float] = []
    while len(times) < 5 or sum(times[2:]) < min_seconds:
        start = time.perf_counter()
        _step(generator, critic, generator_adam, critic_adam, real, padded_previous, draw)
        if real.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times[2:])[(len(times) - 2) // 2]


def _padded(image: torch.Tensor) -> torch.Tensor:
    return functional.pad(image, (5, 5, 5, 5))


@torch.no_grad()
def _random_pass(generators: list[Generator], sizes: list, like: torch.Tensor) -> torch.Tensor:
    """Returns a random image of the frozen generators [1, C, *sizes[-1]]; sizes has one more than there are of them."""
    image = like.new_zeros(1, like.shape[1], *sizes[0])
    for generator, size, larger in zip(generators, sizes[:-1], sizes[1:], strict=True):
        previous, noise = _padded(image), _padded(torch.randn(1, like.shape[1], *size, device=like.device))
        image = functional.interpolate(generator(AMPLITUDE * noise + previous, previous), larger, mode="bicubic")
    return image


def _step(
    generator,
    critic,
    generator_adam,
    critic_adam,
    real,
    padded_previous,
    draw: Callable[[], torch.Tensor],
) -> None:
    noise = _padded(torch.randn_like(real))
    for _ in range(3):
        previous = draw()
        inputs = AMPLITUDE * noise + previous
        critic_adam.zero_grad()
        (-critic(real).mean()).backward()
        with torch.no_grad():
            fake = generator(inputs, previous)
        critic(fake).mean().backward()
        epsilon = torch.rand(1, device=real.device)
        mixed = (epsilon * real + (1 - epsilon) * fake).requires_grad_(True)
        (gradient,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
        (0.1 * ((gradient.norm(2, dim=1) - 1) ** 2).mean()).backward()
        critic_adam.step()
    for parameter in critic.parameters():  # the generator's step has no use for the critic's weight gradients
        parameter.requires_grad_(False)
    for _ in range(3):
        generator_adam.zero_grad()
        (-critic(generator(inputs, previous)).mean()).backward()
        (10 * functional.mse_loss(generator(padded_previous, padded_previous), real)).backward()
        generator_adam.step()
    for parameter in critic.parameters():
        parameter.requires_grad_(True)
