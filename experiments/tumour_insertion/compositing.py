"""Composites: tumours of other patients in the training images of a run, pasted, feathered or blended by gradients."""

import dataclasses
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy import ndimage

from experiments.tumour_insertion import blending, matching, placement
from experiments.tumour_insertion.blending import Feather
from experiments.tumour_insertion.donors import Candidate, Donor, patient_of, spacing_of, usable_parts
from experiments.tumour_insertion.matching import Matching
from experiments.tumour_insertion.placement import NoRoom, Placed, Turn
from launch.images.brain import brain_mask, fluid_mask
from launch.images.modality_names import modality
from singan.errors import UserError
from singan.metrics.seams import contour_step
from singan.storage.run import Run
from singan.storage.workdir import ImageRecord

ATTEMPTS = 4  # donors tried for each tumour that is wanted
RIM = 1.0  # pixels of the brain's border whose values are part brain, part background
SURROUNDINGS = 5  # pixels around a tumour that are no healthy tissue either
CONTEXT = 16  # pixels of the donor's slice around its tumour that a comparison of texture may look at
MIN_FINEST = 4  # pixels of a tumour at the run's finest scale, below which it would not be seen


@dataclasses.dataclass(frozen=True, eq=False)
class Insertion:
    """A tumour in a background. Windows are the part of it that `placed` lies over, float32 [h, w, C] in [-1, 1].

    Attributes:
      name: unique in the run; of its files.
      donor: the slice it comes from.
      background: float32 [H, W, C] in [-1, 1].
      pasted: numbers of the run's channels that it was put in; in the others composites are the background.
      feather: how it fades out in the composite "feather".
      windows: the composites, by blending.METHODS.
      own: window of the donor's own slice, turned as the tumour is: the tumour in its own brain.
      own_step: at its contour there, see singan.metrics.seams.contour_step; of the channels `pasted`.
      real: the donor's tumour as it was, not turned, and its mask: [a, b, C] in [-1, 1], bool [a, b].
      labels: uint8 [H, W] in the donor's numbering.
      mask: bool [H, W], what is tumour.
    """

    name: str
    record: ImageRecord
    donor: Donor
    placed: Placed
    matching: Matching
    background: np.ndarray
    pasted: tuple[int, ...]
    feather: Feather
    windows: Mapping[str, np.ndarray]
    own: np.ndarray
    own_step: float
    real: tuple[np.ndarray, np.ndarray]
    labels: np.ndarray
    mask: np.ndarray

    def composite(self, method: str) -> np.ndarray:
        """Returns a composite as a whole image, float32 [H, W, C] in [-1, 1]; method: one of blending.METHODS."""
        pixels = self.background.copy()
        pixels[self.placed.window] = self.windows[method]
        return pixels


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A background, or a tumour for it, that nothing came of."""

    background: str
    donor: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Choice:
    """How tumours are drawn.

    Attributes:
      scales: least and largest size, in multiples of the donor's.
      margin: pixels between a tumour and the brain's border.
      match: of matching.RULES.
      feather, edge: pixels, see blending.Feather; None: chosen for each tumour.
    """

    per_background: int = 4
    seed: int = 0
    scales: tuple[float, float] = (0.8, 1.2)
    margin: float = 3.0
    match: str = "auto"
    allow_same_patient: bool = False
    feather: float | None = None
    edge: float | None = None


def sizes(given: Sequence[str]) -> tuple[float, float]:
    """Returns the least and the largest size that --scale gives as text."""
    try:
        low, high = (float(text) for text in given)
    except ValueError:
        low, high = 0.0, 0.0
    if not 0 < low <= high < np.inf:
        raise UserError(f"--scale={','.join(given)} must be two sizes, the least first, such as 0.8,1.2")
    return low, high


def draw(run: Run, image_id: str, candidates: Sequence[Candidate], choice: Choice) -> Iterator[Insertion | Skipped]:
    """Yields the tumours of one background, and what was skipped on the way; by (seed, image id) alone.

    Patients are drawn first and their slices then, so that a patient with many slices counts no more than others.
    """
    record = run.record(image_id)
    rng = np.random.default_rng([choice.seed, zlib.crc32(image_id.encode())])
    own = patient_of(image_id, record.details)
    try:
        pool = _by_patient(candidates, "" if choice.allow_same_patient else own)
        pixels = run.pixels(image_id)
        beyond = outside(record, pixels)
        allowed, tissue, brain = (brain_mask(beyond, margin) for margin in (choice.margin, RIM, 0))
        values, healthy = record.value_map.invert(pixels), np.zeros(beyond.shape, bool)
        fluid = fluid_mask(values, record.channels, brain, healthy)
        if not allowed.any():
            raise NoRoom(f"it shows no brain more than {choice.margin:g} pixels from its border: lower --margin")
    except NoRoom as error:
        yield Skipped(image_id, "", str(error))
        return
    height, width = run.spec.at(len(run.scales) - 1).size
    least = int(np.ceil(MIN_FINEST * allowed.size / (height * width)))
    made = 0
    for candidate in _in_turn(pool, rng, ATTEMPTS * choice.per_background):
        if made == choice.per_background:
            return
        turn = Turn(float(rng.uniform(0, 360)), bool(rng.integers(2)), float(rng.uniform(*choice.scales)))
        try:
            donor = candidate.read()
            name = f"{image_id}_tumour{made:02d}"
            spacings = spacing_of(donor.details), spacing_of(record.details)
            parts = usable_parts(donor)
            placed = placement.place(donor.image, donor.labels, allowed, turn, rng, least, *spacings, fluid, *parts)
            yield composite(name, record, pixels, tissue, donor, placed, choice)
            made += 1
        except NoRoom as error:
            yield Skipped(image_id, candidate.id, str(error))


def outside(record: ImageRecord, pixels: np.ndarray) -> np.ndarray:
    """Returns bool [H, W]: where every modality of a training image holds its background value.

    Raises:
      NoRoom: no background value is recorded, or the slice has a tumour of its own.
    """
    if record.details.get("has_tumour"):
        raise NoRoom("it has a tumour of its own: train on slices without, --config.data.has_tumour=no")
    known = [c for c, value in enumerate(record.value_map.background) if value is not None]
    if not known:
        raise NoRoom("what surrounds the brain is not known: train with --config.data.background=0")
    return (pixels[..., known] == record.value_map.padding[known]).all(-1)


def composite(
    name: str,
    record: ImageRecord,
    pixels: np.ndarray,
    tissue: np.ndarray,
    donor: Donor,
    placed: Placed,
    choice: Choice,
) -> Insertion:
    """Returns the composites: the background's very bits, and the donor's matched intensities at the tumour.

    Args:
      pixels: the background, float32 [H, W, C] in [-1, 1].
      tissue: bool [H, W], the background's brain, to match intensities by.
    """
    names = [modality(channel) for channel in record.channels]
    pasted = tuple(c for c, channel in enumerate(names) if channel in donor.channels)
    if not pasted:
        raise NoRoom(f"it holds {', '.join(donor.channels)}, of which the run has none")
    theirs, ours = [donor.channels.index(names[c]) for c in pasted], list(pasted)
    their_tissue = brain_mask((donor.image == 0).all(-1), RIM)
    their_tissue &= np.asarray(ndimage.distance_transform_edt(donor.labels == 0)) > SURROUNDINGS
    values = record.value_map.invert(pixels)
    try:
        matched = matching.match(donor.image[..., theirs], their_tissue, values[..., ours], tissue, choice.match)
    except ValueError as error:
        raise NoRoom(str(error)) from error

    def in_our_range(image: np.ndarray, rest: np.ndarray | float) -> np.ndarray:
        """Donor values [..., C'] as all channels of the run in [-1, 1]; `rest` where the donor has none."""
        filled = np.broadcast_to(rest, (*image.shape[:-1], len(names))).astype(np.float64)
        filled[..., ours] = matched.apply(image[..., theirs])
        return record.value_map.apply(filled)

    window = placed.window
    behind = pixels[window]
    own = in_our_range(placed.image, values[window])
    rest = [c for c in range(len(names)) if c not in pasted]
    known = placed.mask | placed.brain
    donor_values = blending.extended(own, known)
    own_step = contour_step(own[..., ours], placed.mask, known)
    if np.isnan(own_step):  # nothing around it is solid brain
        own_step = contour_step(own[..., ours], placed.mask)
    feather = blending.choose_feather(
        behind[..., ours],
        donor_values[..., ours],
        placed.mask,
        tissue[window],
        own[..., ours],
        own_step,
        blending.choices(choice.feather, choice.edge),
    )
    near = np.asarray(ndimage.distance_transform_edt(~placed.mask)) <= blending.RING
    ring = placed.mask | (near & tissue[window])
    windows = {
        "paste": blending.mix(behind, own, placed.mask),
        "feather": blending.mix(behind, donor_values, blending.feather_weights(placed.mask, tissue[window], feather)),
        "poisson": np.clip(blending.poisson(behind, donor_values, ring), -1, 1),
    }
    for image in (own, *windows.values()):
        image[..., rest] = behind[..., rest]  # their very bits
    mask, labels = np.zeros(pixels.shape[:2], bool), np.zeros(pixels.shape[:2], np.uint8)
    mask[window], labels[window] = placed.mask, placed.labels
    their_mask = placement.tumour_mask(donor.labels, usable_parts(donor)[0])
    (box,) = ndimage.find_objects(their_mask.astype(np.uint8))
    box = tuple(slice(max(side.start - CONTEXT, 0), side.stop + CONTEXT) for side in box)
    real = in_our_range(donor.image[box], 0.0), their_mask[box]
    return Insertion(
        name, record, donor, placed, matched, pixels, pasted, feather, windows, own, own_step, real, labels, mask
    )


def check_run(run: Run) -> None:
    """Raises a UserError where the images of a run are no scans that tumours can be put into."""
    for record in run.images:
        if record.details.get("masks"):
            raise UserError(
                f"{record.id} has masks among its channels ({', '.join(record.channels)}): tumours are put into"
                " intensities, train on modalities alone"
            )


def _by_patient(candidates: Sequence[Candidate], without: str) -> list[list[Candidate]]:
    patients: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        if candidate.patient != without:
            patients.setdefault(candidate.patient, []).append(candidate)
    if not patients:
        raise NoRoom(
            f"all tumours are of {without}, whose slice this is: give those of other patients, or --allow_same_patient"
        )
    return list(patients.values())


def _in_turn(pool: Sequence[Sequence[Candidate]], rng: np.random.Generator, count: int) -> Iterator[Candidate]:
    order: list[int] = []
    for _ in range(count):
        order = order or rng.permutation(len(pool)).tolist()
        slices = pool[order.pop()]
        yield slices[int(rng.integers(len(slices)))]
