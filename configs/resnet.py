"""ResNet-18, pretrained on ImageNet, all parameters fine-tuned: the original recipe.

    python -m meljax.main --config configs/resnet.py --config.data.path=FOLDER

Adam at 1e-4, batches of 12, 500 epochs, 90/10 split, one frequency and one time mask, 224 × 224.
"""

from meljax.config import default_config


def get_config():
    """Returns the settings; `python -m meljax.main --help` explains every key."""
    config = default_config()
    config.model.name = "resnet18"
    config.model.init = "auto"
    config.data.image_size = 224
    config.data.val_fraction = 0.1
    config.train.epochs = 500
    config.train.batch_size = 12
    config.train.learning_rate = 1e-4
    return config
