"""The benchmark with the settings of one accelerator, in less than nine minutes: checks, then what is most telling.

python -m experiments.training_time.gpu --out=results/gpu
python -m experiments.training_time.gpu --tiny              (proves on any machine that it works)

It is `experiments.training_time.bench` with other defaults, and takes its flags. It needs jax, flax, optax, absl and
numpy alone (torch for PyTorch beside it), so that it runs on a machine where nothing else is installed.
"""

import sys

from absl import app

from experiments.training_time import bench

DEFAULTS = {
    "size": "240",
    "cohorts": ["1", "4", "16", "64"],
    "precision": ["tf32", "bf16", "highest"],
    "seconds": 0.5,
    "minutes": 7.5,
    "checks": True,
    "forms": True,
    "out": "results/gpu",
}
TINY = {"size": "30", "cohorts": ["1", "2"]}

if __name__ == "__main__":
    tiny = any(argument.lstrip("-") in ("tiny", "tiny=true") for argument in sys.argv[1:])
    for name, value in {**DEFAULTS, **(TINY if tiny else {})}.items():
        bench.flags.FLAGS.set_default(name, value)
    try:
        from launch.cli import run
    except ModuleNotFoundError:  # of a package that only the other commands need
        run = app.run
    run(bench.main)
