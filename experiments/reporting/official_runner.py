"""Trains a checkout of the official implementation (tamarott/SinGAN) on one image and draws samples with it.

Started by official_checkout.py in a process of its own, perhaps with the checkout's own Python: it needs torch and what
the checkout needs, nothing of this repository, and is written for older Pythons too. The checkout's functions do the
training and the sampling; the loop over scales below is that of its `training.train`, made resumable: a finished scale
is never trained again.

Usage: official_runner.py CHECKOUT FOLDER. FOLDER holds request.json (what `official_checkout.train` is given) and
reals.npz (the image at each scale, [1, C, H, W] in [-1, 1], named 0, 1, ..) and gets state.pt after each scale, the
files of the checkout's own trained models (Gs.pth, Zs.pth, reals.pth, NoiseAmp.pth), samples.npz (start_0, start_1,
..: [S, H, W, C] in [0, 1]), seconds.json (of each scale) and result.json: {"seconds", "torch": version, "threads"}.
"""

import contextlib
import json
import os
import sys
import time

import numpy as np
import torch  # pyright: ignore[reportMissingImports]

UPDATES = 3  # of each network in an iteration


def main() -> None:
    checkout, *folder = sys.argv[1:]
    sys.path[0] = checkout  # in place of this file's own folder
    from config import get_arguments  # pyright: ignore
    from SinGAN import functions, manipulate, training  # pyright: ignore[reportMissingImports]

    if not folder:  # whether the checkout can be imported was all that was asked
        return
    os.chdir(folder[0])
    with open("request.json") as file:
        request = json.load(file)
    images = np.load("reals.npz")
    opt = options_of(get_arguments(), request, functions)
    reals = [torch.from_numpy(images[str(scale)]).to(opt.device) for scale in range(len(images.files))]
    opt.nc_im = opt.nc_z = reals[0].shape[1]
    opt.stop_scale = len(reals) - 1
    times = note_updates(request["cuda"])
    state = {"Gs": [], "Zs": [], "NoiseAmp": [], "in_s": 0, "seconds": [], "nets": None, "random": None}
    if os.path.exists("state.pt"):
        state = torch.load("state.pt", weights_only=False)
        torch.set_rng_state(state["random"])
    training.plt.imsave = lambda *_, **__: None  # its pictures of the training are not looked at here
    for scale in range(len(state["Gs"]), len(reals)):
        train_scale(scale, state, reals, opt, request, training, functions, times)
        state["random"] = torch.get_rng_state()
        torch.save(state, "state.pt.new")
        os.replace("state.pt.new", "state.pt")
    for name, content in (("Gs", state["Gs"]), ("Zs", state["Zs"]), ("reals", reals), ("NoiseAmp", state["NoiseAmp"])):
        torch.save(content, name + ".pth")
    samples = {}
    for start in request["start_scales"]:
        drawn = [sample(state, reals, opt, start, manipulate) for _ in range(request["samples"])]
        samples["start_" + str(start)] = np.stack(drawn)
    result = {"seconds": state["seconds"], "torch": str(torch.__version__), "threads": torch.get_num_threads()}
    for name, content in (("seconds", state["seconds"]), ("result", result)):
        with open(name + ".json", "w") as file:
            json.dump(content, file)
    np.savez_compressed("samples.new.npz", **samples)
    os.replace("samples.new.npz", "samples.npz")


def options_of(parser, request, functions):
    """Returns the checkout's options for training on one image, as its main_train.py makes them."""
    opt = parser.parse_args([] if request["cuda"] else ["--not_cuda"])
    opt.mode, opt.input_dir, opt.input_name = "train", ".", "image.png"
    opt.niter, opt.nfc, opt.min_nfc = request["steps"][0], request["widths"][0], request["widths"][0]
    opt.Gsteps = opt.Dsteps = UPDATES
    opt.manualSeed = request["seed"]
    opt = functions.post_config(opt)
    opt.scale_factor = request["ratio"]
    return opt


def train_scale(scale, state, reals, opt, request, training, functions, times):
    """Trains the next scale as `training.train` of the checkout does: it starts from the one below of equal width."""
    widths = request["widths"]
    opt.niter, opt.nfc, opt.min_nfc = request["steps"][scale], widths[scale], widths[scale]
    opt.outf = str(scale)
    os.makedirs(opt.outf, exist_ok=True)
    with contextlib.redirect_stdout(sys.stderr):
        critic, generator = training.init_models(opt)
        if scale and widths[scale - 1] == widths[scale]:
            generator.load_state_dict(state["nets"][0])
            critic.load_state_dict(state["nets"][1])
        del times[:]
        began = time.perf_counter()
        z_opt, in_s, generator = training.train_single_scale(
            critic, generator, reals, state["Gs"], state["Zs"], state["in_s"], state["NoiseAmp"], opt
        )
    seconds = time.perf_counter() - began
    median = median_iteration(times, opt.niter)  # refuses forks that make other updates
    state["seconds"].append(median if request["of_iterations"] else seconds)
    state["nets"] = generator.state_dict(), critic.state_dict()
    state["in_s"] = in_s
    state["Gs"].append(functions.reset_grads(generator, False).eval())
    state["Zs"].append(z_opt)
    state["NoiseAmp"].append(opt.noise_amp)


def sample(state, reals, opt, start, manipulate):
    """Returns one sample of the checkout's own sampler, [H, W, C] in [0, 1]."""
    drawn = manipulate.SinGAN_generate(
        state["Gs"], state["Zs"], reals, state["NoiseAmp"], opt, gen_start_scale=start, num_samples=1
    )
    return ((drawn[0].permute(1, 2, 0).cpu().numpy() + 1) / 2).clip(0, 1)


def note_updates(cuda):
    """Returns a list that gets the time of every Adam update from now on.

    The official code goes backward three times in an iteration through weights that have been updated since. Until
    torch 1.4 nobody noticed; newer ones refuse. Here the updates leave the version counters of the weights alone, as
    they did then, so that gradients and work are those that the code was published with, with every torch.
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
    """Returns the median seconds of an iteration, from the times of all its updates; the first is not counted."""
    if len(times) != 2 * UPDATES * iterations:
        raise RuntimeError(f"{len(times)} Adam updates in {iterations} iterations, and not {2 * UPDATES} in each")
    ends = times[2 * UPDATES - 1 :: 2 * UPDATES]
    each = sorted(ends[number + 1] - ends[number] for number in range(1, len(ends) - 1))
    return each[len(each) // 2]


if __name__ == "__main__":
    main()
