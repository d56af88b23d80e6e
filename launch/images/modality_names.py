"""The usual names of MRI modalities."""

# Names of one modality in the years of BraTS and in other collections.
SYNONYMS = {"t1n": "t1", "t1w": "t1", "t1c": "t1ce", "t1gd": "t1ce", "t1post": "t1ce", "t2w": "t2", "t2f": "flair"}


def modality(channel: str) -> str:
    """Returns a channel's usual name: 't1c', 'T1Gd' and 't1ce' are one modality."""
    plain = channel.strip().lower()
    return SYNONYMS.get(plain, plain)
