"""Imports run one way: a file knows only what stands above it."""

import ast

import pytest
from conftest import ROOT

ORDER = [
    "errors",
    "cli",
    "config",
    "paths",
    "table",
    "streams",
    "backend",
    "mesh",
    "windows",
    "melspec",
    "augment",
    "frontend",
    "metrics",
    "intervals",
    "paired",
    "calibration",
    "progress",
    "rows",
    "data.files",
    "data.split",
    "data.images",
    "data.audio",
    "data.reader",
    "data.cache",
    "data.tfds",
    "data.records",
    "data.voices",
    "data.load",
    "data.feed",
    "models.initialisers",
    "models.normalise",
    "models.thin",
    "models.batchnorm",
    "models.pool",
    "models.relu",
    "models.cnn",
    "models.resnet",
    "models",
    "models.torchfile",
    "models.weights",
    "models.pretrained",
    "models.initial",
    "optim",
    "state",
    "steps",
    "results",
    "scoring",
    "tasks",
    "checkpoint",
    "checkpointing",
    "logs",
    "runs",
    "saved",
    "streaming",
    "summary",
    "record",
    "pages",
    "pages.parts",
    "pages.figures",
    "pages.mistakes",
    "pages.run",
    "pages.comparison",
    "session",
    "finish",
    "train",
    "main",
    "predict",
    "evaluate",
    "onnx_graph",
    "export",
    "report",
]
FILES = {
    ".".join(path.relative_to(ROOT / "meljax").with_suffix("").parts).removesuffix(
        ".__init__"
    ): path
    for path in (ROOT / "meljax").rglob("*.py")
}


def imported(path) -> set[str]:
    """Names, without 'meljax.', of the modules of ours that a file imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {name.removeprefix("meljax.") for name in names if name.startswith("meljax.")}
    return ours & FILES.keys()


def test_every_file_has_its_place():
    assert set(ORDER) | {"__init__", "data"} == set(FILES)
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("name", ORDER)
def test_a_file_imports_only_from_above(name):
    below = imported(FILES[name]) - set(ORDER[: ORDER.index(name)]) - {"data"}
    assert not below, f"{name} imports {below}, which stand beneath it"


@pytest.mark.parametrize("name", ORDER)
def test_heavy_packages_are_never_imported(name):
    tree = ast.parse(FILES[name].read_text())
    roots = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not roots & {"tensorflow", "torch", "torchvision", "librosa", "sklearn", "tensorboard"}
