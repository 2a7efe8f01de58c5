"""Environment variables of the tests; imported before JAX."""

import os
import sys
import tempfile


def _platform() -> str:
    """Returns the value of `--platform`; workers of xdist find it in the environment."""
    for option, value in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
        if option.partition("=")[0] == "--platform":
            return option.partition("=")[2] or value
    return os.environ.get("MELJAX_TEST_PLATFORM", "")


PLATFORM = os.environ["MELJAX_TEST_PLATFORM"] = _platform()
if PLATFORM:
    os.environ["JAX_PLATFORMS"] = PLATFORM if PLATFORM == "cpu" else f"{PLATFORM},cpu"
    # GPUs use TF32 for float32 products by default, which exceeds the tests' tolerances.
    os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
else:
    # Four devices are emulated for the tests of several devices. Programs are optimized less than
    # usual, because small ones take longer to compile than to run.
    os.environ["XLA_FLAGS"] = (
        "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    )
    os.environ["JAX_PLATFORMS"] = "cpu"
# Tests are offline: this proxy does not exist, so a real download fails.
os.environ["https_proxy"] = "http://127.0.0.1:9"
# Workers and their child processes share compiled programs.
os.environ.setdefault("XDG_CACHE_HOME_OF_TESTS", tempfile.mkdtemp(prefix="meljax-tests-"))
os.environ["XDG_CACHE_HOME"] = os.environ["XDG_CACHE_HOME_OF_TESTS"]
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["XDG_CACHE_HOME"] + "/jax"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
