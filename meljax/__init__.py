"""meljax: trains voice classifiers from recordings or spectrograms."""

from meljax.util.version import __version__ as __version__
