"""Tables of Markdown, the titles of metrics, and signed differences."""

from launch.results.numbers import number
from launch.results.text_table import markdown_table as markdown_table

TITLES = {
    "swd": "SWD",
    "random_sifid": "SIFID, random features",
    "diversity": "diversity",
    "ms_ssim": "MS-SSIM",
    "rmse": "RMSE",
    "nearest_patch_ratio": "nearest-patch ratio",
    "copied": "copied",
}


def signed(value: float | None) -> str:
    """Returns a difference with its sign."""
    if not value:
        return "0"
    return f"{'+' if value > 0 else '−'}{number(abs(value))}"
