"""Every setting of a run: the keys, and files of settings such as `configs/cnn.py`."""

from meljax.config.keys import GROUPS as GROUPS
from meljax.config.keys import KEYS as KEYS
from meljax.config.keys import Config as Config
from meljax.config.keys import DataConfig as DataConfig
from meljax.config.keys import MaskConfig as MaskConfig
from meljax.config.keys import MelConfig as MelConfig
from meljax.config.keys import ModelConfig as ModelConfig
from meljax.config.keys import TrainConfig as TrainConfig
from meljax.config.keys import Value as Value
from meljax.config.keys import default_config as default_config
from meljax.config.keys import flat as flat
from meljax.config.keys import from_flat as from_flat
