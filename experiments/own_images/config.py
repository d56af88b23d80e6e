"""Images of your own, with the method's own settings: what to start from.

python -m launch.train --config=experiments/own_images/config.py --config.data.path=FOLDER --workdir=runs/mine

Add --plan first: it says what the run needs and at least how long it takes. README.md has the flags for a first look.
Expected: scales from 25 pixels to 128 at the longer side, 2000 steps each.
"""

from launch.configs import default_config


def get_config():
    """Returns the configuration. config.data.path is to be given."""
    config = default_config()
    config.data.source = ""  # no example in the place of what was not given
    config.pyramid.max_size = 128
    return config
