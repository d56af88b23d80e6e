"""Trains a checkout of the official implementation (tamarott/SinGAN) on one image and draws samples with it.

Started by official.py in a process of its own, perhaps with the checkout's own Python: it needs torch and what the
checkout needs, nothing of this repository. The checkout's functions do the training and the sampling; the loop over
scales below is that of its `training.train`, made resumable: a finished scale is never trained again.

Usage: official_runner.py CHECKOUT REQUEST FOLDER. REQUEST is a JSON file; FOLDER holds reals.npz (the image at each
scale, [1, C, H, W] in [-1, 1], named 0, 1, ..) and gets state.pt after each scale, the files of the checkout's own
trained models (Gs.pth, Zs.pth, reals.pth, NoiseAmp.pth) and samples.npz (start_0, start_1, ..: [S, H, W, C] in [0, 1]).
"""

import argparse
import contextlib
import json
import os
import sys
import time

import numpy as np
import torch  # pyright: ignore[reportMissingImports]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout")
    parser.add_argument("request", nargs="?", help="JSON: seed, steps, width, ratio, start_scales, samples, cuda")
    parser.add_argument("folder", nargs="?")
    given = parser.parse_args()
    sys.path[0] = given.checkout  # in place of this file's own folder
    from config import get_arguments  # pyright: ignore
    from SinGAN import functions, manipulate, training  # pyright: ignore[reportMissingImports]

    if given.request is None:  # whether the checkout can be imported was all that was asked
        return
    with open(given.request) as file:
        request = json.load(file)
    os.chdir(given.folder)
    images = np.load("reals.npz")
    opt = options_of(get_arguments(), request, functions)
    reals = [torch.from_numpy(images[str(scale)]).to(opt.device) for scale in range(len(images.files))]
    opt.nc_im = opt.nc_z = reals[0].shape[1]
    opt.stop_scale = len(reals) - 1
    keep_version_counters()
    state = {"Gs": [], "Zs": [], "NoiseAmp": [], "in_s": 0, "seconds": [], "nets": None, "random": None}
    if os.path.exists("state.pt"):
        state = torch.load("state.pt", weights_only=False)
        torch.set_rng_state(state["random"])
    training.plt.imsave = lambda *_, **__: None  # its pictures of the training are not looked at here
    for scale in range(len(state["Gs"]), len(reals)):
        train_scale(scale, state, reals, opt, request, training, functions)
        state["random"] = torch.get_rng_state()
        torch.save(state, "state.pt.new")
        os.replace("state.pt.new", "state.pt")
        print(json.dumps({"scale": scale, "seconds": state["seconds"][-1]}), flush=True)
    for name, content in (("Gs", state["Gs"]), ("Zs", state["Zs"]), ("reals", reals), ("NoiseAmp", state["NoiseAmp"])):
        torch.save(content, name + ".pth")
    samples = {}
    for start in request["start_scales"]:
        drawn = [sample(state, reals, opt, start, manipulate) for _ in range(request["samples"])]
        samples[f"start_{start}"] = np.stack(drawn)
    with open("seconds.json", "w") as file:
        json.dump(state["seconds"], file)
    np.savez_compressed("samples.new.npz", **samples)
    os.replace("samples.new.npz", "samples.npz")
    print(json.dumps({"seconds": state["seconds"], "torch": str(torch.__version__)}))


def options_of(parser, request, functions):
    """Returns the checkout's options for training on one image, as its main_train.py makes them."""
    opt = parser.parse_args([] if request["cuda"] else ["--not_cuda"])
    opt.mode, opt.input_dir, opt.input_name = "train", ".", "image.png"
    opt.niter, opt.nfc, opt.min_nfc = request["steps"], request["width"], request["width"]
    opt.manualSeed = request["seed"]
    opt = functions.post_config(opt)
    opt.scale_factor = request["ratio"]
    return opt


def train_scale(scale, state, reals, opt, request, training, functions):
    """Trains the next scale as `training.train` of the checkout does: it starts from the one below of equal width."""
    before = opt.nfc_init * 2 ** ((scale - 1) // 4) if scale else 0
    opt.nfc = min(opt.nfc_init * 2 ** (scale // 4), 128)
    opt.min_nfc = min(opt.min_nfc_init * 2 ** (scale // 4), 128)
    opt.outf = str(scale)
    os.makedirs(opt.outf, exist_ok=True)
    with contextlib.redirect_stdout(sys.stderr):
        critic, generator = training.init_models(opt)
        if min(before, 128) == opt.nfc:
            generator.load_state_dict(state["nets"][0])
            critic.load_state_dict(state["nets"][1])
        began = time.perf_counter()
        z_opt, in_s, generator = training.train_single_scale(
            critic, generator, reals, state["Gs"], state["Zs"], state["in_s"], state["NoiseAmp"], opt
        )
    state["seconds"].append(time.perf_counter() - began)
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


def keep_version_counters():
    """Lets Adam's updates leave the version counters of the weights alone, as torch until 1.4 did.

    The official code goes backward three times in an iteration through weights that have been updated since. Newer
    versions of torch notice and refuse; the gradients that it was published with are these.
    """
    original = torch.optim.Adam.step
    preserve = getattr(torch.autograd, "_unsafe_preserve_version_counter", contextlib.nullcontext)

    def step(self, *arguments, **named):
        with contextlib.ExitStack() as stack:
            for group in self.param_groups:
                for parameter in group["params"]:
                    stack.enter_context(preserve(parameter))
            return original(self, *arguments, **named)

    torch.optim.Adam.step = step


if __name__ == "__main__":
    main()
