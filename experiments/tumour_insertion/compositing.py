"""Naive composites: tumours of other patients pasted into the training images of a run, hard along their masks."""

import dataclasses
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage

from launch.images.modality_names import modality
from experiments.tumour_insertion import matching, placement
from experiments.tumour_insertion.donors import Candidate, Donor, patient_of, spacing_of
from experiments.tumour_insertion.matching import Matching
from experiments.tumour_insertion.placement import NoRoom, Placed, Turn
from singan.errors import UserError
from singan.storage.run import Run
from singan.storage.workdir import ImageRecord

ATTEMPTS = 4  # donors tried for each tumour that is wanted
RIM = 1.0  # pixels of the brain's border whose values are part brain, part background
SURROUNDINGS = 5  # pixels around a tumour that are no healthy tissue either
MIN_FINEST = 4  # pixels of a tumour at the run's finest scale, below which it would not be seen


@dataclasses.dataclass(frozen=True, eq=False)
class Insertion:
    """A tumour in a background.

    Attributes:
      name: unique in the run; of its files.
      donor: the slice it comes from.
      pasted: numbers of the run's channels that it was pasted in; in the others the composite is the background.
      pixels: float32 [H, W, C] in [-1, 1], the composite.
      labels: uint8 [H, W] in the donor's numbering.
      mask: bool [H, W], what was pasted.
    """

    name: str
    record: ImageRecord
    donor: Donor
    placed: Placed
    matching: Matching
    pasted: tuple[int, ...]
    pixels: np.ndarray
    labels: np.ndarray
    mask: np.ndarray


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
    """

    per_background: int = 4
    seed: int = 0
    scales: tuple[float, float] = (0.8, 1.2)
    margin: float = 3.0
    match: str = "auto"
    allow_same_patient: bool = False


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
        allowed, tissue = (placement.brain_mask(beyond, margin) for margin in (choice.margin, RIM))
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
            placed = placement.place(donor.image, donor.labels, allowed, turn, rng, least, *spacings)
            yield composite(name, record, pixels, tissue, donor, placed, choice.match)
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
    match: str = "auto",
) -> Insertion:
    """Returns the composite: the background's very bits, and within the mask the donor's matched intensities.

    Args:
      pixels: the background, float32 [H, W, C] in [-1, 1].
      tissue: bool [H, W], the background's brain, to match intensities by.
    """
    names = [modality(channel) for channel in record.channels]
    pasted = tuple(c for c, channel in enumerate(names) if channel in donor.channels)
    if not pasted:
        raise NoRoom(f"it holds {', '.join(donor.channels)}, of which the run has none")
    theirs = [donor.channels.index(names[c]) for c in pasted]
    their_tissue = placement.brain_mask((donor.image == 0).all(-1), RIM)
    their_tissue &= np.asarray(ndimage.distance_transform_edt(donor.labels == 0)) > SURROUNDINGS
    values = record.value_map.invert(pixels)
    try:
        matched = matching.match(donor.image[..., theirs], their_tissue, values[..., list(pasted)], tissue, match)
    except ValueError as error:
        raise NoRoom(str(error)) from error
    tumour = values[placed.window].astype(np.float64)
    tumour[..., list(pasted)] = matched.apply(placed.image[..., theirs])
    mask, labels = np.zeros(pixels.shape[:2], bool), np.zeros(pixels.shape[:2], np.uint8)
    mask[placed.window], labels[placed.window] = placed.mask, placed.labels
    drawn = np.zeros(len(names), bool)
    drawn[list(pasted)] = True
    result = pixels.copy()
    where = placed.mask[..., None] & drawn
    result[placed.window] = np.where(where, record.value_map.apply(tumour), pixels[placed.window])
    return Insertion(name, record, donor, placed, matched, pasted, result, labels, mask)


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
