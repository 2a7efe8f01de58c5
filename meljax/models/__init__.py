"""The networks: from pictures in 0…1 to logits, normalisation included."""

from flax import linen as nn

from meljax.config import ModelConfig
from meljax.models.cnn import CNN
from meljax.models.resnet import ResNet18


def build(config: ModelConfig, classes: int) -> nn.Module:
    """Returns the network `config.name` for `classes` classes."""
    if config.name == "resnet18":
        return ResNet18(classes, config.width or 64, config.compute)
    return CNN(classes, config.width or 32, config.compute)
