"""BraTS: multi-parametric MRI of gliomas, as TFDS."""
