"""Samples as a TensorFlow data set, written without TensorFlow: for whoever reads their data with TFDS."""

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from launch.samples.npy import NpyRows
from singan import files
from singan.errors import UserError
from singan.model.layouts import Layout
from singan.storage.workdir import ImageRecord

NAME, NUMBER = "samples", "1.0.0"


class TfdsWriter:
    """FOLDER/samples/1.0.0, a TFDS data set of array records with the split train, in the order of images and samples.

    An example has image [H, W, C] in the source's values and its own type (float32 where sources differ in type), id of
    the training image, sample (its number) and start_scale; the channels' names are in the metadata. To read it:

        builder = tfds.builder_from_directory("FOLDER/samples/1.0.0")
        samples = builder.as_data_source("train")
    """

    def __init__(self, folder: Path, records: Sequence[ImageRecord], num_samples: int, start_scale: int):
        if files.is_bucket(folder):
            raise UserError("--format=tfds: give a folder of this machine as --out, and copy it to the bucket then")
        self._folder, self._records, self._scale = folder, list(records), start_scale
        self._places = {record.id: index * num_samples for index, record in enumerate(records)}
        self._rows = num_samples * len(records)
        types = {record.value_map.dtype for record in records}
        self._dtype = np.dtype(types.pop()) if len(types) == 1 else np.dtype(np.float32)
        self._stack = contextlib.ExitStack()
        self._drawn: NpyRows | None = None

    def __enter__(self) -> "TfdsWriter":
        self._stack.__enter__()
        self._scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(dir=self._folder, prefix=".tmp-")))
        return self

    def add(self, ids: Sequence[str], first: int, pixels: np.ndarray, layouts: Sequence[Sequence[Layout]] = ()) -> None:
        by_id = {record.id: record for record in self._records}
        if self._drawn is None:
            shape = (self._rows, *pixels.shape[2:])
            self._drawn = self._stack.enter_context(NpyRows(self._scratch / "drawn.npy", shape, self._dtype))
        for name, drawn in zip(ids, pixels, strict=True):
            stored = by_id[name].value_map.invert(drawn, as_stored=self._dtype.name == by_id[name].value_map.dtype)
            self._drawn.write(self._places[name] + first, stored)

    def __exit__(self, *error: Any) -> None:
        with self._stack:
            if error[0] is None and self._drawn is not None:
                self._drawn.finish()
                with files.named_os_errors(self._folder):
                    self._build(np.load(self._scratch / "drawn.npy", mmap_mode="r", allow_pickle=False))

    def _build(self, drawn: np.ndarray) -> None:
        """Writes the data set; an older one of the folder is replaced."""
        import tensorflow_datasets as tfds  # imported here: it takes a second, and only this format needs it
        from array_record.python.array_record_module import ArrayRecordWriter

        records, places, scale, shape = self._records, self._places, self._scale, drawn.shape[1:]
        dtype = np.uint8 if self._dtype.kind == "b" else self._dtype.type

        class Samples(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            """Images drawn from SinGANs."""

            name = NAME
            VERSION = tfds.core.Version(NUMBER)
            RELEASE_NOTES = {NUMBER: "As drawn."}  # noqa: RUF012

            def _info(self) -> Any:
                features = {
                    "image": tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes"),
                    "id": tfds.features.Text(),
                    "sample": tfds.features.Scalar(np.int32),
                    "start_scale": tfds.features.Scalar(np.int32),
                }
                return tfds.core.DatasetInfo(
                    builder=self,
                    description="Images drawn from SinGANs, each trained on one image.",
                    features=tfds.features.FeaturesDict(features),
                    disable_shuffling=True,
                    metadata=tfds.core.MetadataDict({"channels": list(records[0].channels)}),
                )

            def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
                return {"train": self._generate_examples()}

            def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
                count = len(drawn) // len(records)
                for record in records:
                    for number in range(count):
                        row = places[record.id] + number
                        image = np.asarray(drawn[row], dtype)
                        yield row, {"image": image, "id": record.id, "sample": number, "start_scale": scale}

            def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
                # In their order, straight into one file: TFDS itself would shuffle, beyond 1 GB through TensorFlow.
                template = tfds.core.ShardedFileTemplate(
                    dataset_name=NAME, split="train", data_dir=self.data_path, filetype_suffix="array_record"
                )
                features: Any = self.info.features
                serializer = tfds.core.ExampleSerializer(features.get_serialized_info())
                writer = ArrayRecordWriter(str(template.sharded_filepath(shard_index=0, num_shards=1)), "group_size:1")
                size = 0
                try:
                    for _, example in self._generate_examples():
                        encoded = serializer.get_tf_example(features.encode_example(example))
                        data = encoded.SerializeToString(deterministic=True)
                        writer.write(data)
                        size += len(data)
                finally:
                    writer.close()
                info = tfds.core.SplitInfo(
                    name="train", shard_lengths=[len(drawn)], num_bytes=size, filename_template=template
                )
                self.info.set_splits(tfds.core.SplitDict([info]))

        with tempfile.TemporaryDirectory(dir=self._scratch) as downloads, contextlib.redirect_stdout(io.StringIO()):
            tfds.disable_progress_bar()
            builder = Samples(data_dir=self._scratch, file_format="array_record")
            builder.download_and_prepare(download_dir=downloads)
        made, target = self._scratch / NAME, self._folder / NAME
        if target.exists():
            target.rename(self._scratch / "replaced")
        made.rename(target)
