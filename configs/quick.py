"""The four-convolution network on the embedded voices, trained on a laptop in one or two minutes.

    python -m meljax.main --config configs/quick.py

Half the mel bands, frames and channels of `configs/cnn.py`, and a learning rate that starts higher
and decays.
"""

from meljax.config import default_config


def get_config():
    """Returns the settings; `python -m meljax.main --help` explains every key."""
    config = default_config()
    config.model.name = "cnn"
    config.model.width = 16
    config.mel.n_mels = 64
    config.mel.hop_length = 512
    config.train.epochs = 12
    config.train.batch_size = 16
    config.train.learning_rate = 3e-3
    config.train.lr_decay = 0.75
    return config
