"""A sweep as users have written it since the first version: its imports must keep working."""

from launch.sweeps.language import chain, log_uniform, product, sample, zip_


def get_sweep():
    rates = ("train.critic_learning_rate", "train.generator_learning_rate")
    return chain(
        product({"pyramid.ratio": [0.65, 0.75]}),
        zip_({rate: [1e-4, 1e-3] for rate in rates}),
        sample({rates[1]: log_uniform(1e-5, 1e-2)}, 2, seed=0),
    )
