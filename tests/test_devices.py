import json
import os
import subprocess
import sys

import jax
import pytest

from meljax.util import devices

SHOW = """
import json, os
from meljax.util import devices
devices.set_up()
import jax
preallocate = os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"]
folder = jax.config.jax_compilation_cache_dir
seconds = jax.config.jax_persistent_cache_min_compile_time_secs
print(json.dumps([preallocate, folder, seconds]))
"""


@pytest.mark.parametrize("wanted", [None, "true"])
def test_environment_variables_override_set_up(tmp_path, wanted):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("JAX_COMPILATION_CACHE_DIR")
    if wanted:
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = wanted
        environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "elsewhere")
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, check=True
    )
    preallocate, programs, seconds = json.loads(done.stdout)
    assert preallocate == (wanted or "false")
    assert programs == str(tmp_path / ("elsewhere" if wanted else "meljax/jax"))
    assert wanted or seconds == 0.5


def test_only_the_cores_of_this_process_count(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 6}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert devices.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert devices.cores() == 64


@pytest.mark.parametrize(
    ("backend", "count", "batch"),
    [("cpu", 1, 1), ("cpu", 4, 4), ("gpu", 1, 64), ("gpu", 8, 64), ("gpu", 3, 66), ("gpu", 65, 65)],
)
def test_every_device_scores_as_many_windows(monkeypatch, backend, count, batch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert devices.scoring_batch(count) == batch
