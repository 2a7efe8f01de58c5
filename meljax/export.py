"""Writes a trained model for use elsewhere:

    python -m meljax.export RUN --format FORMAT --out FILE

stablehlo: from a waveform or a picture to probabilities, for JAX on CPU, CUDA and TPU.
onnx: the same, for onnxruntime and others (needs the extra: pip install 'meljax[onnx]').
torch: the network's weights alone, as safetensors under torchvision's names and in its layout.

The weights are those of the run's best epoch. FILE.json, beside FILE, holds the names of the
classes and what goes in and comes out.
"""

import importlib.metadata
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

import meljax
from meljax import backend, cli, saved
from meljax import frontend as frontend_lib
from meljax.errors import UserError
from meljax.models.normalise import IMAGENET_MEAN, IMAGENET_STD
from meljax.models.pretrained import to_torch
from meljax.models.weights import write_weights
from meljax.onnx_graph import NEEDS_EXTRA, onnx_model
from meljax.paths import write_whole
from meljax.saved import SavedModel

PLATFORMS = ("cpu", "cuda", "tpu")

TOLERANCE = {"stablehlo": 1e-5, "onnx": 1e-4}
"""How far the probabilities of what is written may be from the model's own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = cli.parser("export", __doc__)
    parser.add_argument("run", metavar="RUN", type=Path, help="directory of a run")
    parser.add_argument("--format", choices=["stablehlo", "onnx", "torch"], required=True)
    parser.add_argument("--out", metavar="FILE", type=Path, required=True)
    arguments = parser.parse_args(argv)
    return cli.run(lambda: _export(arguments.run, arguments.format, arguments.out))


def _export(run: Path, form: str, out: Path) -> int:
    backend.set_up()
    model = saved.load(run)
    # What is taken elsewhere computes in float32, whatever it was trained in.
    model = model._replace(network=model.network.clone(dtype="float32"))
    if form == "torch":
        export_torch(model, out)
        checked = ""
    else:
        data, difference = (stablehlo if form == "stablehlo" else onnx)(model)
        _write(out, data)
        checked = f", within {difference:.0e} of the model's own probabilities"
    description = describe(model, form) | {"run": run.absolute().name}
    _write(
        out.with_name(f"{out.name}.json"),
        json.dumps(description, indent=2, ensure_ascii=False) + "\n",
    )
    print(f"{out}: epoch {model.epoch}, {len(model.classes)} classes{checked}")
    return 0


def _write(path: Path, content: str | bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def export_torch(model: SavedModel, file: Path) -> None:
    """Writes the weights for PyTorch; class names and the input stand in the file's metadata.

    Raises:
      UserError: the network has no counterpart, or the file cannot be written.
    """
    if model.config.model.name != "resnet18":
        raise UserError(
            "--format torch is for model.name='resnet18': torchvision has no network "
            f"like {model.config.model.name!r}"
        )
    metadata = {
        "classes": json.dumps(model.classes),
        "mean": json.dumps(IMAGENET_MEAN),
        "std": json.dumps(IMAGENET_STD),
    }
    write_weights(file, to_torch(model.variables, model.step), metadata)


def stablehlo(model: SavedModel) -> tuple[bytes, float]:
    """Returns the model, serialised by `jax.export`, and how far its probabilities are off.

    Raises:
      UserError: they are too far off.
    """
    shape = ("batch", *input_shape(model))
    (batch,) = jax.export.symbolic_shape("batch")
    like = jax.ShapeDtypeStruct((batch, *shape[1:]), _input_type(model))
    exported = jax.export.export(jax.jit(classifier(model)), platforms=PLATFORMS)(like)
    data = bytes(exported.serialize())
    read_back = jax.export.deserialize(bytearray(data))
    return data, _difference(model, "stablehlo", lambda x: np.asarray(read_back.call(x)))


def onnx(model: SavedModel) -> tuple[bytes, float]:
    """Returns the model as ONNX, and how far its probabilities are off in onnxruntime.

    Raises:
      UserError: they are too far off, or the extra is missing.
    """
    graph = onnx_model(
        model.network, model.frontend, model.variables, model.temperature, model.classes
    )
    try:
        import onnxruntime
    except ImportError:
        raise UserError(NEEDS_EXTRA) from None
    data = graph.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return data, _difference(model, "onnx", lambda x: session.run(None, {name: x})[0])


def classifier(
    model: SavedModel,
) -> Callable[[Shaped[Array, "batch ..."]], Float[Array, "batch c"]]:
    """Returns the function of a batch of raw inputs that gives probabilities; see `describe`."""

    def classify(x: Shaped[Array, "batch ..."]) -> Float[Array, "batch classes"]:
        if model.frontend.kind == "sound":
            pictures = frontend_lib.spectrograms(model.frontend, x)
        else:
            pictures = frontend_lib.pictures(model.frontend, jnp.swapaxes(x, 1, 2))
        weight = jnp.ones(x.shape[0])
        logits = model.network.apply(model.variables, pictures, weight, train=False)
        return jax.nn.softmax(logits / model.temperature)

    return classify


def input_shape(model: SavedModel) -> tuple[int, ...]:
    """Returns the shape of one input: (samples,), or (height, width, channels)."""
    frontend = model.frontend
    if frontend.kind == "sound":
        return (frontend.window,)
    return (frontend.height, frontend.window, frontend.channels)


def _input_type(model: SavedModel) -> np.dtype:
    return np.dtype(np.float32 if model.frontend.kind == "sound" else np.uint8)


def _difference(model: SavedModel, form: str, written: Callable[[np.ndarray], np.ndarray]) -> float:
    """Returns how far what was written is off on noise of all kinds of loudness, and on silence.

    Raises:
      UserError: further than it may be.
    """
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, 5).reshape(-1, *[1] * len(input_shape(model)))
    x = x * rng.uniform(-1, 1, (5, *input_shape(model))) ** 3
    x = x.astype(np.float32) if model.frontend.kind == "sound" else (255 * abs(x)).astype(np.uint8)
    own = np.asarray(jax.jit(classifier(model))(x))
    difference = float(np.abs(written(x) - own).max())
    if not difference <= TOLERANCE[form]:
        raise UserError(
            f"--format {form}: the probabilities of what would be written are {difference:.1e} off "
            "those of the model; nothing was written. Please report this"
        )
    return difference


def describe(model: SavedModel, form: str) -> dict[str, Any]:
    """Returns what `FILE.json` is to hold: classes, input, output and where it comes from."""
    frontend = model.frontend
    sound = frontend.kind == "sound"
    given = {
        "name": "waveform" if sound else "image",
        "dtype": str(_input_type(model)),
        "shape": ["batch", *input_shape(model)],
    }
    if sound:
        given |= {"sample_rate": frontend.mel.sample_rate, "meaning": _SOUND}
    else:
        given |= {"meaning": _RESIZED if frontend.image_size else _PICTURE}
    output = {"name": "probabilities", "dtype": "float32", "shape": ["batch", len(model.classes)]}
    if form == "torch":
        given = {"shape": ["batch", 3, "height", "width"], "meaning": _TORCH}
        output = {"name": "logits", "dtype": "float32", "shape": ["batch", len(model.classes)]}
    return {
        "format": form,
        "classes": list(model.classes),
        "input": given,
        "output": output,
        "temperature": model.temperature,
        "epoch": model.epoch,
        "versions": {"meljax": meljax.__version__, "jax": importlib.metadata.version("jax")},
    }


_WINDOWS = (
    "What is not as long is cut or padded: a single window begins at (length - window) // 2, "
    "rounded down also where that is negative, and {padding} stands before and after what is "
    "shorter. What is 1.5 windows long or longer has 1 + (length - window) // (window // 2) "
    "windows, evenly spaced from its beginning to its end (rounded), whose probabilities are "
    "averaged."
)
_SOUND = (
    "one window of mono samples (the mean of the channels) at sample_rate, of any loudness. "
    f"{_WINDOWS.format(padding='silence, 0,')}"
)
_PICTURE = (
    "rows of pixels, the highest frequencies first, grey or RGB as the shape says, one window of "
    f"columns. {_WINDOWS.format(padding='its darkest colour')}"
)
_RESIZED = (
    "rows of pixels, the highest frequencies first, grey or RGB as the shape says; a picture of "
    "any other size is resized to it, bilinear and antialiased (Pillow's BILINEAR)."
)
_TORCH = (
    "pictures in 0…1, grey ones repeated three times, minus mean and divided by std: "
    f"{IMAGENET_MEAN} and {IMAGENET_STD}. Front end and temperature are not inside."
)


if __name__ == "__main__":
    cli.leave(main())
