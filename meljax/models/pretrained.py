"""How the weights begin."""

from jaxtyping import PyTree

from meljax.config import ModelConfig
from meljax.errors import UserError


def initial_params(config: ModelConfig, random: PyTree) -> tuple[PyTree, str]:
    """Returns the weights to begin with, and in words how they began.

    Args:
      config: `init` decides.
      random: freshly drawn weights, kept where nothing better is asked for or to be had.

    Raises:
      UserError: weights are asked for that cannot be had.
    """
    if config.init == "scratch" or (config.init == "auto" and config.name == "cnn"):
        return random, "random"
    if config.init == "auto":
        return random, "random: ImageNet weights could not be had"
    raise UserError(f"model.init={config.init!r}: pretrained weights cannot be read yet; "
                    "model.init='scratch' begins with random ones")  # fmt: skip
