"""Rules that no other tool checks."""

import ast
import contextlib
import importlib.metadata
import re

import pytest
from conftest import ROOT

from meljax.util.version import __version__, versions

MODULES = sorted((ROOT / "meljax").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_imports_the_root_package(path):
    """The version is in util, so that `import meljax` can import every module."""
    packages = {each.stem for each in (ROOT / "meljax").iterdir()}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert "meljax" not in [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom) and node.module == "meljax":
            assert {alias.name for alias in node.names} <= packages


def test_every_package_states_its_purpose():
    for path in MODULES:
        doc = ast.get_docstring(ast.parse(path.read_text()))
        assert doc, path
        assert "TODO" not in doc, path


def test_there_is_one_version():
    assert versions([])["meljax"] == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert "version =" not in (ROOT / "pyproject.toml").read_text().split("[tool.")[0]
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    # The tests may run on a tree that is not installed.
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        assert importlib.metadata.version("meljax") == __version__
