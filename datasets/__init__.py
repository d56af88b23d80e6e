"""TFDS dataset builders for medical images; `python -m datasets.build` prepares them without TensorFlow."""
