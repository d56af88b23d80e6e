"""PanNuke: stained tissue patches with nuclear instances of five classes, as TFDS."""
