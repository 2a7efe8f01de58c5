"""meljax: from a folder of voices to a classifier one can trust."""

from meljax.util.version import __version__ as __version__
