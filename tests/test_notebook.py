"""docs/quickstart.ipynb runs, and shows what it says."""

import json

import pytest
from conftest import ROOT

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"


def test_the_notebook_runs(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("pandas")
    monkeypatch.setenv("XLA_FLAGS", "")  # one device, as readers have
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    shown = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    for words in ("report: runs/quickstart/report.html", "macro-F1", "<audio controls", "unknown"):
        assert words in shown, words
    assert (tmp_path / "runs" / "quickstart" / "model.stablehlo").is_file()


def test_the_stored_notebook_is_a_complete_run():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    shown = json.dumps(outputs)
    assert "runs/quickstart" in shown
    assert "/runs/quickstart" not in shown  # no absolute path of the machine that ran it
