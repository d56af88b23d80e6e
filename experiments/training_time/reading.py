"""How long 64 BraTS slices take from a prepared data set to a cohort in memory (make bench prints it).

The volume is made by code, of BraTS' shape and values, built with datasets.build, and read from a warm disk.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from datasets.brats.make_dummy_data import volumes, write_patient
from launch import cli
from launch.images.find import load_images
from singan.config import DataConfig

SHAPE = (240, 240, 155)
SLICES = 64


def main(argv: list[str]) -> int:
    del argv
    with tempfile.TemporaryDirectory() as folder:
        source, prepared = Path(folder) / "source", Path(folder) / "prepared"
        write_patient(source / "BraTS2021_00000", "BraTS2021_00000", volumes(0, (1, 2, 4), SHAPE))
        build = [sys.executable, "-m", "datasets.build", "brats", f"--manual_dir={source}", f"--data_dir={prepared}"]
        started = time.perf_counter()
        subprocess.run(build, check=True, capture_output=True)
        built = time.perf_counter() - started
        channels = ("t1", "t2", "flair")
        data = DataConfig(source="tfds:brats/slices", path=str(prepared), channels=channels, max_images=SLICES)
        seconds = []
        for _ in range(4):  # the first warms the disk's cache and the imports
            started = time.perf_counter()
            images = load_images(data)
            seconds.append(time.perf_counter() - started)
    print(
        f"{len(images)} slices of {' x '.join(map(str, images[0].pixels.shape))} into a cohort:"
        f" {sorted(seconds[1:])[1]:.2f} s from a warm disk (building the patient's data set: {built:.1f} s)"
    )
    return 0


if __name__ == "__main__":
    cli.run(main)
