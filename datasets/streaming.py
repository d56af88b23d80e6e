"""A TFDS builder that writes examples in order, straight into their shards, without TensorFlow.

TFDS shuffles examples on the way to disk, in memory up to 1000 MiB and through TensorFlow's file system beyond that.
Medical data wants neither: a cohort is larger than that, and in the order of patients a subsplit such as
`train[:80%]` parts patients, whereas after a shuffle slices of one patient land on both sides.
"""

import collections
import contextlib
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from datasets.archives import Source, fingerprint
from datasets.errors import BadExample, DataError, some
from datasets.prepared import READING

# Serialised bytes of a shard before compression. The shards of TFDS hold at most 1 GiB.
SHARD_BYTES = 1 << 30


@dataclasses.dataclass
class Report:
    """What a build did beside writing examples.

    Attributes:
      skipped: (where, reason) of the examples at fault.
      left_out: How many examples a rule left out, by rule.
      notes: Lines about input that was read in a way the user should know of.
      unused: Places of files of the kind that is read, which were not.
      labels: How segmentations are numbered, and how that was decided; BraTS only.
      remarks: The examples that something is to be said of, by what is to be said.
    """

    skipped: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    left_out: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    notes: list[str] = dataclasses.field(default_factory=list)
    unused: list[str] = dataclasses.field(default_factory=list)
    labels: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    remarks: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def remark(self, text: str, where: str) -> None:
        """Notes something that may hold for many examples: they are counted, and a few are named."""
        places = self.remarks.setdefault(text, [])
        if where not in places[-1:]:
            places.append(where)

    def all_notes(self) -> list[str]:
        """Returns the notes, and a line for each remark."""
        return self.notes + [f"{some(places)}: {text}" for text, places in self.remarks.items()]


class StreamingBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of the builders of this package; they define the usual `_info`, `_split_generators`, `_generate_examples`.

    Args:
      source: The opened download. None: the manual_dir that TFDS is given.
      skip_bad: Leave out examples at fault and list them in `report`, instead of raising.
      file_format: Only 'array_record' can be written.
      **kwargs: data_dir, config, version, as for every TFDS builder.

    Beside the features, metadata.json (`builder.info.metadata`) keeps `index`: for every split a dict of the columns
    INDEX_COLUMNS, one entry per record in the order of the records, so that records can be chosen without being read.
    It also keeps what `Report` has, `source` (number of files, bytes and digest of paths and sizes), `labels_asked` (as
    --labels gave it, '' without) and `reading` (which state of the reading rules made it, `prepared.READING`).
    """

    INDEX_COLUMNS: tuple[str, ...] = ("id",)
    labels_asked: str = ""

    def __init__(
        self, *, source: Source | None = None, skip_bad: bool = False, file_format: Any = "array_record", **kwargs
    ):
        # Set before super().__init__, which already calls _info.
        self.source = source
        self.skip_bad = skip_bad
        self.report = Report()
        if tfds.core.FileFormat.from_value(file_format or "array_record") is not tfds.core.FileFormat.ARRAY_RECORD:
            raise DataError(f"file_format {file_format} is not written here: leave it out or give array_record")
        super().__init__(file_format="array_record", **kwargs)

    @staticmethod
    def wanted(path: str) -> bool:
        """Returns whether a file of this path, relative to the download, can be part of the data set."""
        raise NotImplementedError

    def opened(self) -> Source:
        """Returns the download; only while splits are generated, or where it was given as `source`."""
        assert self.source is not None
        return self.source

    def features(self) -> tfds.features.FeaturesDict:
        """Returns the features of an example."""
        features = self.info.features
        assert isinstance(features, tfds.features.FeaturesDict)
        return features

    def bad_example(self, error: BadExample) -> None:
        """Notes the example as skipped, or raises a DataError where `skip_bad` is off."""
        if not self.skip_bad:
            raise DataError(f"{error}; mend it, or leave it out with --skip_bad") from None
        self.report.skipped.append((error.where, error.reason))

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        """Writes all splits. TFDS calls it with the data directory set to a temporary one, renamed afterwards."""
        self.report = Report()
        opened = None
        if self.source is None:
            opened = self.source = Source(dl_manager.manual_dir, self.wanted)
        try:
            limit = getattr(download_config, "max_examples_per_split", None)
            index, splits = {}, []
            for split, examples in self._split_generators(dl_manager).items():
                info, columns = self._write_split(split, itertools.islice(examples, limit))
                if info.num_examples:
                    splits.append(info)
                    index[split] = columns
            if not splits:
                raise DataError("no example is left to write: every one was skipped or left out")
            self.info.set_splits(tfds.core.SplitDict(splits))
            assert isinstance(self.info.metadata, tfds.core.MetadataDict)
            self.info.metadata.update(
                index=index,
                skipped=self.report.skipped,
                left_out=dict(self.report.left_out),
                notes=self.report.all_notes(),
                unused=self.report.unused,
                labels=self.report.labels,
                labels_asked=self.labels_asked,
                reading=READING,
                source=fingerprint(self.opened().members),
            )
        finally:
            if opened is not None:
                opened.close()
                self.source = None

    def _write_split(
        self, split: str, examples: Iterable[tuple[str, dict[str, Any]]]
    ) -> tuple[tfds.core.SplitInfo, dict[str, list]]:
        """Writes the examples of one split; returns its TFDS description and the columns of its index."""
        template = tfds.core.ShardedFileTemplate(
            dataset_name=self.name, split=split, data_dir=self.data_path, filetype_suffix="array_record"
        )
        columns: dict[str, list] = {column: [] for column in self.INDEX_COLUMNS}
        features = self.features()
        specs: Any = features.get_serialized_info()
        serializer = tfds.core.ExampleSerializer(specs)
        keys = set()

        def records() -> Iterator[bytes]:
            for key, example in examples:
                if key in keys:
                    raise DataError(f"two examples of {split} are named {key}: remove one of them from the download")
                keys.add(key)
                for column, values in columns.items():
                    values.append(_plain(example[column]))
                yield _serialise(serializer, features.encode_example(example))

        shards, num_bytes = _write_shards(records(), pathlib.Path(self.data_path) / f"{split}.shard")
        for number, (file, _) in enumerate(shards):
            os.rename(file, template.sharded_filepath(shard_index=number, num_shards=len(shards)))
        info = tfds.core.SplitInfo(
            name=split,
            shard_lengths=[length for _, length in shards],
            num_bytes=num_bytes,
            filename_template=template,
        )
        return info, columns


def _serialise(serializer: tfds.core.ExampleSerializer, encoded: dict[str, Any]) -> bytes:
    # Deterministic: protobuf writes a map in an order of its own, so that equal builds would differ.
    return serializer.get_tf_example(encoded).SerializeToString(deterministic=True)


def _write_shards(records: Iterable[bytes], stem: pathlib.Path) -> tuple[list[tuple[pathlib.Path, int]], int]:
    """Writes records to files stem0, stem1, ...; returns (file, number of records) of each, and the records' bytes."""
    shards: list[tuple[pathlib.Path, int]] = []
    total = in_shard = 0
    writer = None
    try:
        for record in records:
            if writer is None or in_shard + len(record) > SHARD_BYTES:
                if writer is not None:
                    writer.close()
                shards.append((stem.with_name(f"{stem.name}{len(shards)}"), 0))
                # group_size 1: a record is read back without its neighbours. Each is compressed with zstd.
                writer = ArrayRecordWriter(str(shards[-1][0]), "group_size:1")
                in_shard = 0
            writer.write(record)
            file, length = shards[-1]
            shards[-1] = (file, length + 1)
            in_shard += len(record)
            total += len(record)
            del record  # a volume takes hundreds of MB: let it go before the next one is read
        if writer is not None:
            writer.close()
    except BaseException:
        # The writer holds a file and threads; they are let go before the folder is removed.
        if writer is not None:
            with contextlib.suppress(RuntimeError):  # the error on its way up is the one to report
                writer.close()
        raise
    return shards, total


def _plain(value: Any) -> Any:
    """Returns a NumPy scalar or array as what JSON can hold."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
