"""The four-convolution network on the embedded voices, sized for a laptop: a minute or two.

    python -m meljax.main --config configs/quick.py

Half the bands, half the frames and half the channels of `configs/cnn.py`, and a learning rate that
starts high and falls.
"""

from meljax.config import default_config


def get_config():
    """Returns the settings; every key is explained by `python -m meljax.main --help`."""
    config = default_config()
    config.model.name = "cnn"
    config.model.width = 16
    config.mel.n_mels = 64
    config.mel.hop_length = 512
    config.train.epochs = 12
    config.train.batch_size = 16
    config.train.learning_rate = 3e-3
    config.train.decay = 0.75
    return config
