"""Times the training iterations of a checkout of the PyTorch reference (tamarott/SinGAN), scale after scale.

Started by reference_peer.py in a process of its own, perhaps with the checkout's own Python: it needs torch and what
the checkout needs, nothing of this repository, and is written for older Pythons too. The checkout's functions do the
training; what is measured is the time from the last update of an iteration to that of the next. The first iteration and
the pictures that the reference saves before the second are not counted.

Prints, as its last line, JSON: {"seconds": {scale: median of an iteration}, "torch": version, "threads": number}.
"""

import argparse
import contextlib
import json
import os
import sys
import time

import numpy as np
import torch  # pyright: ignore[reportMissingImports]

UPDATES = 3  # of each network in an iteration


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout")
    parser.add_argument("request", nargs="?", help="JSON: iterations and width of each scale, ratio, cuda")
    parser.add_argument(
        "images", nargs="?", help="npz: the image at each scale [1, C, H, W] in [-1, 1], named 0, 1, .."
    )
    given = parser.parse_args()
    sys.path[0] = given.checkout  # in place of this file's own folder
    from config import get_arguments  # pyright: ignore[reportMissingImports]
    from SinGAN import functions, training  # pyright: ignore[reportMissingImports]

    if given.request is None:  # whether the checkout can be imported was all that was asked
        return
    with open(given.request) as file:
        request = json.load(file)
    opt = options_of(get_arguments(), request, functions)
    images = np.load(given.images)
    reals = [torch.from_numpy(images[str(scale)]).to(opt.device) for scale in range(len(images.files))]
    opt.nc_im = opt.nc_z = reals[0].shape[1]
    opt.stop_scale = len(reals) - 1
    times = updates_noted(request["cuda"])
    generators, noises, amplitudes, previous, seconds = [], [], [], 0, {}
    for scale in range(len(reals)):
        opt.niter = request["iterations"][scale]
        opt.nfc = opt.min_nfc = request["widths"][scale]
        opt.outf = os.path.join(opt.out_, str(scale))
        os.makedirs(opt.outf)
        critic, generator = training.init_models(opt)
        del times[:]
        noise, previous, generator = training.train_single_scale(
            critic, generator, reals, generators, noises, previous, amplitudes, opt
        )
        seconds[scale] = median_iteration(times, opt.niter)
        generators.append(functions.reset_grads(generator, False).eval())
        noises.append(noise)
        amplitudes.append(opt.noise_amp)
    print()
    print(json.dumps({"seconds": seconds, "torch": str(torch.__version__), "threads": torch.get_num_threads()}))


def options_of(parser, request, functions):
    """Returns the checkout's options for training on one image, as its main_train.py makes them."""
    opt = parser.parse_args([] if request["cuda"] else ["--not_cuda"])
    opt.mode, opt.input_dir, opt.input_name = "train", ".", "image.png"
    opt.Gsteps = opt.Dsteps = UPDATES
    opt.manualSeed = 0
    opt = functions.post_config(opt)
    opt.scale_factor = request["ratio"]
    opt.out_ = "trained"  # in the current folder, which is a temporary one
    return opt


def updates_noted(cuda):
    """Returns a list that gets the time of every Adam update from now on.

    The reference goes backward through weights that have been updated since, three times in an iteration. Until torch
    1.4 nobody noticed; newer ones refuse. Here the updates leave the tensors' version counters alone, as they did then,
    so that the work of an iteration is the reference's with every torch.
    """
    times, original = [], torch.optim.Adam.step
    preserve = getattr(torch.autograd, "_unsafe_preserve_version_counter", contextlib.nullcontext)

    def step(self, *arguments, **named):
        with contextlib.ExitStack() as stack:
            for group in self.param_groups:
                for parameter in group["params"]:
                    stack.enter_context(preserve(parameter))
            result = original(self, *arguments, **named)
        if cuda and len(times) % (2 * UPDATES) == 2 * UPDATES - 1:  # an iteration's last
            torch.cuda.synchronize()
        times.append(time.perf_counter())
        return result

    torch.optim.Adam.step = step
    return times


def median_iteration(times, iterations):
    """Returns the median seconds of an iteration, from the times of all its updates."""
    if len(times) != 2 * UPDATES * iterations:
        raise RuntimeError(f"{len(times)} Adam updates in {iterations} iterations, and not {2 * UPDATES} in each")
    ends = times[2 * UPDATES - 1 :: 2 * UPDATES]
    each = sorted(ends[number + 1] - ends[number] for number in range(1, len(ends) - 1))
    return each[len(each) // 2]


if __name__ == "__main__":
    main()
