"""What of a run is sent to wandb: pictures or not, names of images or numbers in their place."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from singan.config import TrackingConfig

# Of config.data: what names files, records and patients.
NAMING = ("path", "ids", "patients")
SHOWN = 8  # images that a caption names


@dataclasses.dataclass(frozen=True)
class Sent:
    """Attributes:
    pictures: whether training images, reconstructions and samples are sent.
    names: whether ids of images are, and what of the configuration and the command line names files and patients.
    weights: whether those of finished scales are.
    ids: of all images, in the order of images.json; a number stands for each where names are not sent.
    """

    pictures: bool = True
    names: bool = True
    weights: bool = False
    ids: tuple[str, ...] = ()

    @classmethod
    def of(cls, tracking: TrackingConfig, ids: Sequence[str] = ()) -> "Sent":
        """Returns what a configuration lets be sent."""
        return cls(tracking.images == "on", tracking.ids == "names", tracking.artifacts, tuple(ids))

    def image(self, image_id: str) -> str:
        """Returns what stands for an image."""
        if self.names:
            return image_id
        return f"image {self.ids.index(image_id)}" if image_id in self.ids else "image"

    def listed(self) -> str:
        """Returns the images in words, for the caption of a picture that shows the first of them."""
        names = [self.image(name) for name in self.ids[:SHOWN]]
        return ", ".join(names) + (f" and up to {len(self.ids) - SHOWN} more" if len(self.ids) > SHOWN else "")

    def config(self, mapping: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the configuration as it is recorded with the run."""
        if self.names or not isinstance(mapping.get("data"), Mapping):
            return dict(mapping)
        return {**mapping, "data": {key: value for key, value in mapping["data"].items() if key not in NAMING}}

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Returns the rows of a table, whose column image has ids."""
        return [{**row, "image": self.image(str(row["image"]))} if "image" in row else dict(row) for row in rows]

    def command(self, argv: Sequence[str]) -> list[str]:
        """Returns a command line as it is recorded with the run."""
        return list(argv) if self.names else list(argv[:1])

    def said(self) -> str:
        """Returns what is sent, for the one who decides about it."""
        parts = ["metrics, the configuration, the commit"]
        parts += ["file names, as ids of the images, paths and the command line"] if self.names else []
        parts += ["pictures of training images and samples"] if self.pictures else []
        parts += ["weights"] if self.weights else []
        asked = [] if not self.pictures else ["--config.tracking.images=off sends numbers alone"]
        asked += ["--config.tracking.ids=numbers leaves the names out"] if self.names else []
        return f"{'; '.join(parts)}" + (f" ({', '.join(asked)})" if asked else "")
