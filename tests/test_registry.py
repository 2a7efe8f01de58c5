import subprocess
import sys

import pytest
from conftest import ROOT

from meljax.config import ModelConfig
from meljax.models import registry
from meljax.util.errors import UserError


def test_an_unknown_network_gives_the_known_names():
    with pytest.raises(UserError, match=r"^model\.name must be 'resnet18' or 'cnn', not 'vgg'$"):
        registry.check(ModelConfig(name="vgg"))


@pytest.mark.parametrize("init", ["imagenet", "weights.pth"])
@pytest.mark.parametrize("keys", [{"name": "cnn"}, {"width": 32}])
def test_pretrained_weights_must_fit_the_network(init, keys):
    message = "'scratch', not .*: .* are for model.name='resnet18' with model.width=64$"
    with pytest.raises(UserError, match=message):
        registry.check(ModelConfig(init=init, **keys))


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(init="imagenet"),
        ModelConfig(init="imagenet", width=64),
        ModelConfig(width=32),
        ModelConfig(name="cnn", init="scratch"),
    ],
)
def test_settings_that_fit_are_accepted(config):
    registry.check(config)


@pytest.mark.parametrize("name", registry.NETWORKS)
def test_networks_are_built_as_their_settings_say(name):
    network = registry.build(ModelConfig(name=name), 7)
    assert network.classes == 7
    assert network.width == registry.NETWORKS[name].default_width
    narrow = registry.build(ModelConfig(name=name, width=5, compute_dtype="bfloat16"), 7)
    assert (narrow.width, narrow.dtype) == (5, "bfloat16")


def test_help_names_every_network():
    text = registry.help_text()
    assert all(f"  {name} " in text for name in registry.NETWORKS)


def test_the_registry_does_not_import_jax():
    code = "import sys; import meljax.models.registry; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
