"""Exports a trained model to a format that other programs read."""

import json
from pathlib import Path

from meljax.export import onnx_graph, stablehlo, torch_weights
from meljax.export.description import describe
from meljax.runs.load_model import TrainedModel, load_model, warn_if_not_calibrated
from meljax.util import devices
from meljax.util.files import write_atomically
from meljax.util.progress import say


def export(run: Path, form: str, out: Path) -> None:
    """Writes the model of the run directory `run` to `out`, and its description to `out`.json.

    `form` is 'stablehlo', 'onnx' or 'torch'.

    Raises:
      UserError: there is no such model, or it cannot be written in this format.
    """
    devices.set_up()
    trained = load_model(run)
    if form != "torch":  # it outputs logits
        warn_if_not_calibrated(trained)
    checked = export_model(trained, run.absolute().name, form, out)
    say(f"{out}: epoch {trained.epoch}, {len(trained.model.classes)} classes{checked}")


def export_model(trained: TrainedModel, name: str, form: str, out: Path) -> str:
    """Writes a model to `out`; returns how its probabilities compare with the original ones.

    `name` is that of its run; for the others see `export`.
    """
    if form == "torch":
        content, checked = torch_weights.serialize(trained), ""
    else:
        serialize = {"stablehlo": stablehlo.serialize, "onnx": onnx_graph.serialize}[form]
        content, difference = serialize(trained)
        within = f"within {difference:.1g} of" if difference else "equal to"
        checked = f", {within} the model's own probabilities"
    write_atomically(out, content, "--out")
    description = describe(trained, form, name)
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    write_atomically(out.with_name(f"{out.name}.json"), text, "--out")
    return checked
