"""The sweep language under the path that older sweep files import: launch.sweep.language."""

from launch.sweep.language import chain, integers, log_uniform, product, sample, uniform, zip_

__all__ = ["chain", "integers", "log_uniform", "product", "sample", "uniform", "zip_"]
