"""The networks that `model.name` can select. No other module lists them."""

import dataclasses
import importlib
from typing import TYPE_CHECKING

from meljax.config import ModelConfig
from meljax.util.errors import UserError

if TYPE_CHECKING:
    import flax


@dataclasses.dataclass(frozen=True)
class Network:
    """A network: its names, its default width and whether it has pretrained weights."""

    name: str  # the value of `model.name`
    display_name: str  # in reports
    class_path: str  # 'module:class' of its flax module in meljax.models; see `build`
    default_width: int  # channels of the first convolution if `model.width` is 0
    pretrained: bool  # whether there are pretrained weights (for the default width)

    def has_pretrained(self, width: int) -> bool:
        """Returns whether there are pretrained weights for `model.width=width`."""
        return self.pretrained and width in (0, self.default_width)


NETWORKS = {
    network.name: network
    for network in (
        Network("resnet18", "ResNet-18", "resnet:ResNet18", 64, pretrained=True),
        Network("cnn", "small convolutional network", "cnn:CNN", 32, pretrained=False),
    )
}
"""Every network by name."""


def build(config: ModelConfig, classes: int) -> "flax.linen.Module":
    """Returns the network `config.name` for `classes` classes.

    It is imported only here, so that settings can be checked without importing JAX.
    """
    network = NETWORKS[config.name]
    module, name = network.class_path.split(":")
    network_class = getattr(importlib.import_module(f"meljax.models.{module}"), name)
    return network_class(classes, config.width or network.default_width, config.compute_dtype)


def check(config: ModelConfig) -> None:
    """Raises `UserError` for an unknown network or pretrained weights that do not fit it."""
    if config.name not in NETWORKS:
        names = " or ".join(map(repr, NETWORKS))
        raise UserError(f"model.name must be {names}, not {config.name!r}")
    wanted = config.init not in ("auto", "scratch")
    if wanted and not NETWORKS[config.name].has_pretrained(config.width):
        fitting = " or ".join(
            f"model.name={network.name!r} with model.width={network.default_width}"
            for network in NETWORKS.values()
            if network.pretrained
        )
        raise UserError(
            f"model.init must be 'auto' or 'scratch', not {config.init!r}: pretrained weights are "
            f"for {fitting}"
        )


def help_text() -> str:
    """Returns the networks for `--help`, one per line."""
    lines = ["Networks, the values of model.name:"]
    for network in NETWORKS.values():
        weights = "; pretrained weights exist" if network.pretrained else ""
        width = f"default width {network.default_width}"
        lines.append(f"  {network.name:10} {network.display_name}; {width}{weights}")
    return "\n".join(lines)
