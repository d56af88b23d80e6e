"""BraTS: pre-operative and treated gliomas, four MRI modalities and their segmentation."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from datasets.brats import layout, numbering, slices, volumes
from datasets.brats.names import MODALITIES
from datasets.progress import track
from datasets.streaming import StreamingBuilder

_MODALITIES = len(MODALITIES)


@dataclasses.dataclass(eq=False)
class BratsConfig(tfds.core.BuilderConfig):
    """Attributes: dimensions: 2 for one example per axial slice, 3 for one per volume."""

    dimensions: int = 2


class Builder(StreamingBuilder):
    """BraTS from 2017 on, and cohorts in its ways; the feature tables are in README.md.

    Args:
      labels: How segmentations are numbered, one of `labels.CHOICES`. None: as the files, their names and what they
        hold tell (numbering.py).
      image_dtype: int16 or float32, the type of all images. None: that of the prepared data set where there is one,
        else chosen from the headers where the source is known, else int16.
      **kwargs: As for StreamingBuilder.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release."}
    BUILDER_CONFIGS: ClassVar = [
        BratsConfig(name="slices", description="One example per axial slice that is not empty.", dimensions=2),
        BratsConfig(name="volumes", description="One example per patient, three-dimensional.", dimensions=3),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Register for the BraTS challenge of a year at synapse.org, download its data, and give the folder or archive. "
        "The README.md beside the builder says more."
    )
    INDEX_COLUMNS = ("id", "patient", "has_seg", "has_tumour", "tumour_voxels", "brain_fraction", "modality_present")

    wanted = staticmethod(layout.wanted)

    def __init__(self, *, image_dtype: Any = None, labels: str | None = None, **kwargs):
        self._image_dtype = image_dtype
        self.labels_asked = labels or ""
        self._layout = None
        super().__init__(**kwargs)
        if self._dimensions == 2:
            self.INDEX_COLUMNS = (*self.INDEX_COLUMNS, "slice_index")

    @property
    def _dimensions(self) -> int:
        config = self.builder_config
        assert isinstance(config, BratsConfig)
        return config.dimensions

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=self._features(),
            homepage="https://www.synapse.org/brats",
            # Patients stay together and in order: see streaming.py.
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _features(self) -> tfds.features.FeaturesDict:
        prepared = pathlib.Path(self.data_path)
        if (prepared / "features.json").exists():
            features = tfds.features.FeaturesDict.from_config(str(prepared))
            assert isinstance(features, tfds.features.FeaturesDict)
            return features
        dtype = self._image_dtype
        if dtype is None:
            dtype = np.int16 if self.source is None else volumes.image_dtype(self._find_patients().patients)
        axes = (None,) * self._dimensions

        def array(shape, dtype):
            # As raw bytes: TFDS would store float64 rounded to float32 and integers as varints. The files are
            # compressed as a whole, so that a second compression here would only cost time.
            return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")

        features = {
            "id": tfds.features.Text(),
            "patient": tfds.features.Text(),
            "grade": tfds.features.Text(),
            "image": array((*axes, _MODALITIES), dtype),
            "seg": array(axes, np.uint8),
            "modalities": tfds.features.Tensor(shape=(_MODALITIES,), dtype=np.str_),
            "modality_present": tfds.features.Tensor(shape=(_MODALITIES,), dtype=np.bool_),
            "has_seg": tfds.features.Scalar(np.bool_),
            "has_tumour": tfds.features.Scalar(np.bool_),
            "tumour_voxels": tfds.features.Scalar(np.int32),
            "brain_fraction": tfds.features.Scalar(np.float32),
            "spacing": tfds.features.Tensor(shape=(3,), dtype=np.float32),
            "affine": array((4, 4), np.float64),
            "orientation": tfds.features.Text(),
            "form_codes": tfds.features.Tensor(shape=(2,), dtype=np.int32),
            "stored_dtypes": tfds.features.Tensor(shape=(_MODALITIES,), dtype=np.str_),
            "background": tfds.features.Tensor(shape=(_MODALITIES,), dtype=np.float32),
            "intensity_min": tfds.features.Tensor(shape=(_MODALITIES,), dtype=np.float32),
            "intensity_max": tfds.features.Tensor(shape=(_MODALITIES,), dtype=np.float32),
            "percentile_0_5": tfds.features.Tensor(shape=(_MODALITIES,), dtype=np.float32),
            "percentile_99_5": tfds.features.Tensor(shape=(_MODALITIES,), dtype=np.float32),
            "label_table": tfds.features.Text(),
            "label_names": tfds.features.Tensor(shape=(5,), dtype=np.str_),
            "label_stored_values": tfds.features.Tensor(shape=(5,), dtype=np.int32),
        }
        if self._dimensions == 2:
            features |= {
                "slice_index": tfds.features.Scalar(np.int32),
                "slice_axis": tfds.features.Scalar(np.int32),
                "volume_affine": array((4, 4), np.float64),
                "volume_shape": tfds.features.Tensor(shape=(3,), dtype=np.int32),
            }
        return tfds.features.FeaturesDict(features)

    def _find_patients(self) -> layout.Layout:
        # Asked for by _info and again by _split_generators: a download has thousands of files, sort them once.
        if self._layout is None or self._layout[0] is not self.source:
            self._layout = (self.source, layout.find_patients(self.opened()))
        return self._layout[1]

    def _split_generators(self, dl_manager) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        layout = self._find_patients()
        for error in layout.errors:
            self.bad_example(error)
        self.report.notes.extend(layout.notes)
        self.report.unused.extend(member.place for member in layout.unused)
        self.report.labels.extend(each.to_json() for each in numbering.decide(layout.patients, self.labels_asked))
        return {
            split: self._generate_examples([patient for patient in layout.patients if patient.split == split], split)
            for split in ("train", "validation", "test")
            if any(patient.split == split for patient in layout.patients)
        }

    def _generate_examples(self, patients, split) -> Iterator[tuple[str, dict[str, Any]]]:
        stored: Any = self.features()["image"].np_dtype
        dtype = np.dtype(stored)
        for patient in track(patients, f"brats {split}", "patients"):
            try:
                read = volumes.read_volumes(patient, dtype)
            except volumes.BadExample as error:
                self.bad_example(error)
                continue
            for remark in read.remarks:
                self.report.remark(remark, patient.name)
            for example in self._examples_of(patient, read):
                if example is None:
                    self.report.left_out["empty slices"] += 1
                else:
                    yield example["id"], example
            del read  # before the next patient is read: memory holds one at a time

    def _examples_of(self, patient, read) -> Iterator[dict[str, Any] | None]:
        if self._dimensions == 3:
            yield slices.volume_example(patient, read)
        else:
            yield from slices.slice_examples(patient, read)
