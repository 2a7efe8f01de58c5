"""Prints what is understood of a data set, without training."""

from meljax.config import Config
from meljax.data.dataset import download_set, load, resolve_set
from meljax.reports import data_summary
from meljax.runs.info import DataInfo, describe_data
from meljax.training.task_setup import make_frontend
from meljax.util.files import cache_dir
from meljax.util.progress import say, warn


def understand(config: Config) -> DataInfo:
    """Reads the data of `config` as training would, and returns what was understood.

    Raises:
      UserError: the data cannot be used.
    """
    config = download_set(resolve_set(config, {}))
    dataset = load(config, cache_dir())
    return describe_data(config, dataset, make_frontend(config, dataset))


def inspect(config: Config) -> None:
    """Prints what `understand` returns."""
    data = understand(config)
    say(data_summary.text(data))
    for line in data.cautions():
        warn(line)
