"""PanNuke: 256x256 patches of 19 tissues, nuclei segmented one by one in five classes."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from datasets.errors import BadExample
from datasets.pannuke import layout
from datasets.pannuke.instances import CLASSES, merge_masks
from datasets.progress import track
from datasets.streaming import StreamingBuilder


class Builder(StreamingBuilder):
    """PanNuke as distributed, a split per fold; the feature table and the rules are in README.md."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Download fold_1.zip, fold_2.zip and fold_3.zip of PanNuke, and give their folder, unpacked or not. "
        "The README.md beside the builder says more."
    )
    INDEX_COLUMNS = ("id", "patch_index", "tissue", "num_nuclei", "class_counts")

    wanted = staticmethod(layout.wanted)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "id": tfds.features.Text(),
            "fold": tfds.features.Scalar(np.int32),
            "patch_index": tfds.features.Scalar(np.int32),
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "instance_map": tfds.features.Tensor(shape=(None, None), dtype=np.uint16, encoding="bytes"),
            "class_map": tfds.features.Tensor(shape=(None, None), dtype=np.uint8, encoding="bytes"),
            "tissue": tfds.features.Text(),
            "num_nuclei": tfds.features.Scalar(np.int32),
            "class_counts": tfds.features.Tensor(shape=(len(CLASSES),), dtype=np.int32),
            "class_names": tfds.features.Tensor(shape=(len(CLASSES),), dtype=np.str_),
            "instance_classes": tfds.features.Tensor(shape=(None,), dtype=np.uint8, encoding="bytes"),
            "instance_source_ids": tfds.features.Tensor(shape=(None,), dtype=np.int32, encoding="bytes"),
            "overlap_pixels": tfds.features.Scalar(np.int32),
            "stored_image_dtype": tfds.features.Text(),
            "stored_mask_dtype": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            homepage="https://warwick.ac.uk/fac/cross_fac/tia/data/pannuke",
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        folds = layout.find_folds(self.opened())
        self.report.notes.extend(f"{fold.split}: {note}" for fold in folds for note in fold.channels.notes())
        return {fold.split: self._generate_examples(fold) for fold in folds}

    def _generate_examples(self, fold: layout.Fold) -> Iterator[tuple[str, dict[str, Any]]]:
        images, masks = iter(fold.images), iter(fold.masks)
        for index in track(range(len(fold.images)), f"pannuke {fold.split}", "patches"):
            key = f"{fold.split}_{index:05d}"
            # Both advance even where the patch is skipped, so that they stay side by side.
            stored_image, stored_masks = next(images), next(masks)
            try:
                example = _example(key, stored_image, fold.channels.in_order(stored_masks))
            except ValueError as error:
                self.bad_example(BadExample(f"{fold.split} patch {index}", str(error)))
                continue
            if hidden := example.pop("hidden"):
                self.report.left_out["instances hidden under smaller ones"] += hidden
            example |= {
                "fold": fold.number,
                "patch_index": index,
                "tissue": fold.tissues[index],
                "stored_image_dtype": fold.images.dtype.name,
                "stored_mask_dtype": fold.masks.dtype.name,
            }
            yield key, example


def _example(key: str, stored_image: np.ndarray, stored_masks: np.ndarray) -> dict[str, Any]:
    """Returns what one patch's arrays give; ValueError where they hold something else than PanNuke's."""
    with np.errstate(invalid="ignore"):
        image = stored_image.astype(np.uint8)
    if not np.array_equal(image, stored_image):
        raise ValueError(
            f"image values must be whole numbers from 0 to 255, got {stored_image.min():g} to {stored_image.max():g}"
        )
    nuclei = merge_masks(stored_masks)
    return {
        "id": key,
        # As a PIL image: an array would be encoded by TensorFlow.
        "image": PIL.Image.fromarray(image),
        "instance_map": nuclei.instance_map,
        "class_map": nuclei.class_map,
        "num_nuclei": len(nuclei.classes),
        "class_counts": nuclei.counts(),
        "class_names": list(CLASSES),
        "instance_classes": nuclei.classes,
        "instance_source_ids": nuclei.source_ids,
        "overlap_pixels": nuclei.overlap_pixels,
        "hidden": nuclei.hidden,
    }
