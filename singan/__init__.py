"""SinGANs on many medical images at once: the method and its parallel engine. JAX, Flax, Optax, NumPy and Orbax."""
