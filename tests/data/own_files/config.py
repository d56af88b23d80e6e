"""A configuration as users have written it since the first version: its imports must keep working."""

from launch.configs import default_config


def get_config():
    config = default_config()
    config.preset = "corrected"  # the default of that time
    config.data.crop_size = 32
    config.pyramid.max_size = 32
    config.train.steps_per_scale = 2
    return config
