"""Converts a ResNet-18's weights to safetensors with torchvision's names and layout."""

import json

from meljax.models.layers import IMAGENET_MEAN, IMAGENET_STD
from meljax.models.pretrained.name_map import to_torch
from meljax.models.pretrained.weights_file import to_safetensors
from meljax.models.resnet import ResNet18
from meljax.runs.load_model import TrainedModel
from meljax.util.errors import UserError


def serialize(trained: TrainedModel) -> bytes:
    """Returns the file's content; its metadata holds the classes and the input's mean and std.

    Raises:
      UserError: torchvision has no such network.
    """
    if not isinstance(trained.model.network, ResNet18):
        raise UserError(
            "--format torch: torchvision has no network like "
            f"model.name={trained.config.model.name!r}"
        )
    metadata = {
        "classes": json.dumps(trained.model.classes),
        "mean": json.dumps(IMAGENET_MEAN),
        "std": json.dumps(IMAGENET_STD),
    }
    return to_safetensors(to_torch(trained.model.variables, trained.step), metadata)
