"""meljax: from a folder of voices to a classifier one can trust, in JAX and Flax."""

__version__ = "0.1.0"
