"""The Python interface: the same workflows as the commands, with values instead of files."""

from meljax.api.explained import Explained as Explained
from meljax.api.model import Model as Model
from meljax.api.model import load as load
from meljax.api.predictions import Predictions as Predictions
from meljax.api.run import Run as Run
from meljax.api.run import compare as compare
from meljax.api.run import inspect as inspect
from meljax.api.run import train as train
from meljax.util.errors import UserError as UserError
