"""Prepares a data set for training, without TensorFlow.

    python -m datasets.build NAME --manual_dir=DIR [--data_dir=DIR] [--config=CONFIG] [--labels=NUMBERING] [--skip_bad]
        [--overwrite]

NAME is brats (configs slices and volumes; slices when none is given) or pannuke. DIR is the folder or the archive of
the download. NUMBERING says what the labels of brats mean where files and names do not: 2020, 2023, 2024, PED, MSD, ...
Exit codes: 0 done, or already built from the same files; 2 something to mend, said in one line. As with every command,
what cannot be printed ends nothing (launch/streams.py).
"""

import contextlib
import errno
import importlib
import io
import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence

from absl import flags, logging

from datasets import prepared
from datasets.archives import Source
from datasets.errors import DataError, some

BUILDERS = {
    "brats": "datasets.brats.brats_dataset_builder",
    "pannuke": "datasets.pannuke.pannuke_dataset_builder",
}


def build(
    name: str,
    manual_dir: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    config: str | None = None,
    labels: str = "",
    skip_bad: bool = False,
    overwrite: bool = False,
) -> tuple[pathlib.Path, bool]:
    """Builds one data set, or finds it built already from the same files.

    Args:
      name: One of BUILDERS.
      manual_dir: Folder or archive of the download.
      data_dir: Where prepared data sets live. None: what TFDS uses, ~/tensorflow_datasets or $TFDS_DATA_DIR.
      config: Config of the builder; None: its first, or none where it has none.
      labels: How the segmentations of brats are numbered, one of `brats.labels.CHOICES`; '' to find out.
      skip_bad: Leave out examples at fault instead of stopping at the first.
      overwrite: Build again where the data set exists; the old one is replaced once the new one is whole.

    Returns:
      The prepared folder, to be read with tfds.builder_from_directory, and whether it was built by this call.

    Raises:
      DataError: Anything the user can mend. Nothing is left behind then, and a data set that was there is as it was.
      OSError, RuntimeError: Writing failed; `disk_full` tells whether for want of space. Nothing is left behind either.
    """
    if name not in BUILDERS:
        raise DataError(f"no data set is called {name!r}: give one of {', '.join(BUILDERS)}")
    import tensorflow_datasets as tfds

    builder_class = importlib.import_module(BUILDERS[name]).Builder
    configs = [config.name for config in builder_class.BUILDER_CONFIGS]
    if config is not None and config not in configs:
        known = f"give one of {', '.join(configs)}" if configs else "it has none, leave --config out"
        raise DataError(f"{name} has no config {config!r}: {known}")
    if labels:
        if name != "brats":
            raise DataError(f"--labels says how segmentations of brats are numbered: leave it out for {name}")
        from datasets.brats.labels import choice

        choice(labels)
    root = pathlib.Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    with contextlib.ExitStack() as stack:
        stack.enter_context(prepared.only_builder(root, name))
        source = stack.enter_context(
            Source(pathlib.Path(manual_dir).expanduser(), builder_class.wanted, scratch=root / name)
        )
        arguments = {"data_dir": root, "source": source, "skip_bad": skip_bad}
        if configs:
            arguments["config"] = config or configs[0]
        if labels:
            arguments["labels"] = labels
        builder = builder_class(**arguments)
        folder = pathlib.Path(builder.data_path)
        prepared.recover(folder)
        if folder.exists() and not overwrite:
            prepared.check_same_source(folder, source, labels)
            return folder, False
        with prepared.replacing(folder), tempfile.TemporaryDirectory() as downloads:
            # Made again: with the old folder moved away it takes its features from the source.
            builder = builder_class(**arguments)
            # TFDS counts up to a total that it does not know; the builders show their own progress.
            tfds.disable_progress_bar()
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare(download_dir=downloads)
    return folder, True


def summary(folder: pathlib.Path) -> str:
    """Returns what a prepared data set holds, in lines for a terminal: splits, what was left out and why, notes."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    metadata = prepared.metadata(folder)
    lines = [f"{builder.info.full_name} in {folder}"]
    for split, info in builder.info.splits.items():
        size = sum(os.path.getsize(file) for file in info.filepaths)
        shards = f"{info.num_shards} file{'s' if info.num_shards > 1 else ''}"
        lines.append(f"  {split:<12}{info.num_examples:>9} examples  {shards:>9}  {size / 1e6:>10.1f} MB")
    left_out = [f"{count} {rule}" for rule, count in metadata["left_out"].items()]
    if unused := metadata.get("unused"):
        left_out.insert(0, f"{len(unused)} NIfTI file{'s' * (len(unused) > 1)} ({some(unused, 5)})")
    lines.append(f"  left out: {', '.join(left_out) or 'nothing'}")
    for decided in metadata.get("labels", ()):
        meaning = ", ".join(f"{value} {name}" for value, name in decided["labels"].items())
        if decided["label_table"] == "as_stored":
            meaning = "the numbers that are stored"
        cases = f"{decided['cases']} segmentation{'s' * (decided['cases'] > 1)}"
        lines.append(f"  labels of {cases}: {meaning} ({decided['label_table']}: {decided['how']})")
    lines += [f"  note: {note}" for note in metadata["notes"]]
    lines.append(f"  skipped: {len(metadata['skipped']) or 'none'}")
    lines += [f"    {where}: {reason}" for where, reason in metadata["skipped"]]
    lines.append(f"read it with tfds.builder_from_directory({str(folder)!r}).as_data_source()")
    return "\n".join(lines)


def disk_full(error: BaseException) -> bool:
    """Returns whether an error, or what caused it, says that no space is left."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(cause, RuntimeError) and "No space left on device" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def main(argv: Sequence[str]) -> int:
    """Runs the command with the arguments after the program's name; returns the exit code."""
    options = flags.FlagValues()
    flags.DEFINE_string("manual_dir", None, "Folder or archive of the download.", flag_values=options)
    flags.DEFINE_string(
        "data_dir", None, "Where prepared data sets live; default ~/tensorflow_datasets.", flag_values=options
    )
    flags.DEFINE_string("config", None, "brats: slices (default) or volumes.", flag_values=options)
    flags.DEFINE_string(
        "labels",
        "",
        "brats: how segmentations are numbered, where it cannot be told or is told wrongly: 2020 (1 2 4; until 2021),"
        " 2023, 2024 (4 is the resection cavity), PED, MEN-RT, MSD, 2015, as_stored.",
        flag_values=options,
    )
    flags.DEFINE_bool("skip_bad", False, "Leave out examples at fault, and list them.", flag_values=options)
    flags.DEFINE_bool("overwrite", False, "Build again where the data set exists.", flag_values=options)
    flags.DEFINE_bool("debug", False, "Show tracebacks.", flag_values=options)
    flags.DEFINE_bool("help", False, "Show this.", short_name="h", flag_values=options)
    try:
        names = options(["datasets.build", *argv])[1:]
    except flags.Error as error:
        return _fail(" ".join(str(error).split()))
    if options.help:
        print(f"{(__doc__ or '').strip()}\n\n{options.main_module_help() or options.get_help()}")
        return 0
    if len(names) != 1:
        return _fail(f"give one data set: python -m datasets.build {'|'.join(BUILDERS)} --manual_dir=DIR")
    if not options.manual_dir:
        return _fail("give the folder or archive of the download as --manual_dir=DIR")
    logging.set_verbosity(logging.ERROR)
    try:
        folder, built = build(
            names[0],
            options.manual_dir,
            data_dir=options.data_dir,
            config=options.config,
            labels=options.labels,
            skip_bad=options.skip_bad,
            overwrite=options.overwrite,
        )
        if not built:
            print("already built from these files, nothing to do (--overwrite builds it again)")
        print(summary(folder))
    except DataError as error:
        if options.debug:
            raise
        return _fail(str(error))
    except (OSError, RuntimeError) as error:
        if options.debug:
            raise
        if disk_full(error):
            return _fail("the disk is full: make room, or give another place with --data_dir; nothing was kept")
        if isinstance(error, OSError):
            return _fail(f"{error.strerror or error}: {error.filename or options.data_dir}")
        raise
    except KeyboardInterrupt:
        return _fail("stopped; nothing was kept, the same command starts over", code=130)
    return 0


def _fail(message: str, code: int = 2) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    from launch import streams

    streams.install()
    sys.exit(streams.exit_code(main(sys.argv[1:])))
