"""The networks, and which input each wants."""

from flax import linen as nn

from meljax.config import ModelConfig
from meljax.models.cnn import CNN
from meljax.models.resnet import ResNet18

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of ImageNet's RGB in 0…1, as torchvision's weights want it."""


def build(config: ModelConfig, classes: int) -> nn.Module:
    """Returns the network `config.name` for `classes` classes."""
    if config.name == "resnet18":
        return ResNet18(classes, config.width or 64)
    return CNN(classes, config.width or 32)


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation that pictures in 0…1 are normalised with.

    The ResNet takes ImageNet's whatever its weights begin as, so that runs with and without
    pretraining differ in the weights alone; the CNN takes 0…1 to -1…1.
    """
    if name == "resnet18":
        return IMAGENET_MEAN, IMAGENET_STD
    return (0.5,), (0.5,)
