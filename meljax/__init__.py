"""meljax: trains classifiers of recordings or spectrograms, and uses them.

The functions are imported when they are first used, so that `import meljax` takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

from meljax.util.version import __version__ as __version__

if TYPE_CHECKING:
    from meljax.api import Explained as Explained
    from meljax.api import Model as Model
    from meljax.api import Predictions as Predictions
    from meljax.api import Run as Run
    from meljax.api import UserError as UserError
    from meljax.api import compare as compare
    from meljax.api import inspect as inspect
    from meljax.api import load as load
    from meljax.api import train as train

__all__ = ["Explained", "Model", "Predictions", "Run", "UserError", "__version__"]
__all__ += ["compare", "inspect", "load", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("meljax.api"), name)
    raise AttributeError(f"module 'meljax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
