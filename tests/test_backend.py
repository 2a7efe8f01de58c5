import json
import os
import subprocess
import sys

import pytest

SHOW = """
import json, os
from meljax import backend
backend.set_up()
import jax
preallocate = os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"]
print(json.dumps([preallocate, jax.config.jax_compilation_cache_dir]))
"""


@pytest.mark.parametrize("wanted", [None, "true"])
def test_the_environment_has_the_last_word(tmp_path, wanted):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("JAX_COMPILATION_CACHE_DIR")
    if wanted:
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = wanted
        environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "elsewhere")
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, check=True
    )
    preallocate, programs = json.loads(done.stdout)
    assert preallocate == (wanted or "false")
    assert programs == str(tmp_path / ("elsewhere" if wanted else "meljax/jax"))
