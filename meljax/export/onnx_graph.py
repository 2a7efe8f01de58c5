"""Converts a trained model to an ONNX graph from raw inputs to probabilities.

The graph includes the front end. It uses basic operators and float32 only, so that runtimes other
than onnxruntime can run it. Its images are NCHW, as usual in ONNX. `_NETWORKS` lists the function
that converts each network. The graph is written by hand, because jax2onnx fails on ResNet-18 and
downgrades orbax.
"""

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree, Shaped

from meljax.config import MelConfig
from meljax.evaluation.forward import Model
from meljax.export.classifier import check_exported, inner_crop, input_like
from meljax.features.frontend import Frontend
from meljax.features.mel_spectrogram import POWER_FLOOR, mel_filterbank
from meljax.models.batch_norm import BatchNorm
from meljax.models.cnn import CNN
from meljax.models.layers import IMAGENET_MEAN, IMAGENET_STD
from meljax.models.resnet import ResNet18
from meljax.runs.load_model import TrainedModel
from meljax.util.errors import UserError

if TYPE_CHECKING:
    import onnx

OPSET = 17
IR_VERSION = 8
"""From 2022; read by onnxruntime since 1.12."""
NEEDS_EXTRA = "--format onnx needs the extra: pip install '.[onnx]'"
MAX_BYTES = 2**31 - 2**20
"""Protocol buffers hold at most 2 GiB; one MiB is left for everything but arrays."""
TOLERANCE = 1e-4


def serialize(trained: TrainedModel) -> tuple[bytes, float]:
    """Returns the file's content and the result of `check_exported` with onnxruntime.

    Raises:
      UserError: the extra is not installed, the model cannot be converted, or its probabilities
        differ from the model's by more than `TOLERANCE`.
    """
    content = onnx_model(trained.model, trained.temperature).SerializeToString()
    try:
        import onnxruntime
    except ImportError:
        raise UserError(NEEDS_EXTRA) from None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def call(x: np.ndarray) -> np.ndarray:
        return session.run(None, {name: x})[0]

    return content, check_exported(trained, "onnx", call, TOLERANCE)


def onnx_model(model: Model, temperature: float) -> "onnx.ModelProto":
    """Returns the graph of `softmax(logits / temperature)`, checked by onnx.

    The input, `waveform` or `image`, is described in `input_like`. The output is `probabilities`,
    float32 [batch, classes]. The batch size is dynamic. The metadata holds, as JSON, the names of
    the classes ('classes') and the sample rate of recordings in Hz ('sample_rate').

    Raises:
      UserError: onnx is not installed, the network cannot be converted, or the model is too large
        for the format.
    """
    try:
        import onnx
    except ImportError:
        raise UserError(NEEDS_EXTRA) from None
    frontend, add_network = model.frontend, _NETWORKS.get(type(model.network))
    if add_network is None:
        raise UserError(f"--format onnx: {type(model.network).__name__} cannot be converted")
    _check_size(frontend, model.variables)
    graph = _Graph(onnx)
    add_frontend = _add_audio if frontend.kind == "audio" else _add_image
    images, rows, columns = add_frontend(graph, frontend)
    logits = add_network(graph, images, rows, columns, jax.tree.map(np.asarray, model.variables))
    scaled = graph.add("Div", logits, np.float32(temperature))
    graph.add("Softmax", scaled, output="probabilities", axis=1)
    shape = ["batch", len(model.classes)]
    output = onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, shape)
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "meljax", graph.inputs, [output], graph.arrays),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="meljax",
    )
    # json escapes all but ASCII, because names of folders may be invalid Unicode.
    metadata = {"classes": json.dumps(list(model.classes))}
    if frontend.kind == "audio":
        metadata["sample_rate"] = json.dumps(frontend.mel.sample_rate)
    onnx.helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _check_size(frontend: Frontend, variables: PyTree) -> None:
    numbers = sum(leaf.size for leaf in jax.tree.leaves(variables))
    if frontend.kind == "audio":
        first, second, bins = _factors(frontend.mel.n_fft)
        numbers += first * 4 * second * bins
    if 4 * numbers > MAX_BYTES:
        raise UserError(
            f"an ONNX file holds at most 2 GiB, and this model would take {4 * numbers / 2**30:.1f}"
        )


class _Graph:
    """Collects the parts of a graph."""

    def __init__(self, onnx: Any):
        self._onnx = onnx
        self.nodes: list[Any] = []  # operators, each after those whose outputs it uses
        self.inputs: list[Any] = []
        self.arrays: list[Any] = []  # constants

    def input(self, name: str, frontend: Frontend, doc: str) -> str:
        """Adds the input with a dynamic batch size; returns its name."""
        like = input_like(frontend, 1)
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(like.dtype)
        shape = ["batch", *like.shape[1:]]
        self.inputs.append(self._onnx.helper.make_tensor_value_info(name, kind, shape, doc))
        return name

    def add(
        self,
        operator: str,
        *inputs: str | Shaped[np.ndarray, "..."] | np.generic,
        output: str = "",
        **attributes: Any,
    ) -> str:
        """Adds an operator; returns the name of its output, chosen here if `output` is empty.

        The inputs are names of other operators' outputs, or arrays, which become constants.
        """
        output = output or f"{operator}_{len(self.nodes)}"
        names = []
        for i, value in enumerate(inputs):
            names.append(value if isinstance(value, str) else f"{output}_{i}")
            if not isinstance(value, str):
                self.arrays.append(self._onnx.numpy_helper.from_array(np.asarray(value), names[-1]))
        self.nodes.append(self._onnx.helper.make_node(operator, names, [output], **attributes))
        return output


def _add_image(graph: _Graph, frontend: Frontend) -> tuple[str, int, int]:
    """Adds the front end of images; returns images in 0…1 [batch, channel, rows, columns]."""
    image = graph.input("image", frontend, "the top row first; gray or RGB")
    if any(crop := inner_crop(frontend)):
        left, top, *_ = crop
        ends = np.array([top + frontend.height, left + frontend.window])
        image = graph.add("Slice", image, np.array([top, left]), ends, np.array([1, 2]))
    channels_first = graph.add("Transpose", image, perm=[0, 3, 1, 2])
    number = graph.add("Cast", channels_first, to=1)  # float32
    images = graph.add("Div", number, np.float32(255), output="network_input")
    return images, frontend.height, frontend.window


def _add_audio(graph: _Graph, frontend: Frontend) -> tuple[str, int, int]:
    """Adds the front end of recordings; returns images in 0…1 [batch, 1, rows, columns]."""
    mel = frontend.mel
    doc = f"mono, {mel.sample_rate} Hz, samples in -1…1 (int16 / 32768)"
    waveform = graph.input("waveform", frontend, doc)
    # Scale to a peak of 1; keep digital silence, whose peak is 0.
    peak = graph.add("ReduceMax", graph.add("Abs", waveform), axes=[1])
    not_silent = graph.add("Sign", peak)
    divisor = graph.add("Add", peak, graph.add("Sub", np.float32(1), not_silent))
    waveform = graph.add("Div", waveform, divisor)
    frames, columns = _frames(graph, waveform, frontend)
    power = graph.add("MatMul", _power(graph, frames, columns, mel.n_fft), _filterbank(mel))
    level = graph.add("Log", graph.add("Max", power, np.float32(POWER_FLOOR)))
    maximum = graph.add("ReduceMax", level, axes=[1, 2])
    scale = np.float32(10 / math.log(10) / mel.top_db)
    relative = graph.add("Mul", graph.add("Sub", level, maximum), scale)
    brightness = graph.add("Relu", graph.add("Add", relative, np.float32(1)))
    # Silence is at its own maximum everywhere, but must be dark.
    brightness = graph.add("Mul", brightness, graph.add("Unsqueeze", not_silent, np.array([2])))
    image = graph.add("Transpose", brightness, perm=[0, 2, 1])
    size, rows = frontend.image_size, mel.n_mels
    if size:
        image = graph.add("MatMul", _resize_matrix(rows, size), image)
        image = graph.add("MatMul", image, _resize_matrix(columns, size).T)
        rows = columns = size
    return graph.add("Unsqueeze", image, np.array([1]), output="network_input"), rows, columns


def _frames(graph: _Graph, waveform: str, frontend: Frontend) -> tuple[str, int]:
    """Adds the frames times the Hann window [batch, columns, n_fft]; returns also `columns`."""
    n_fft, hop = frontend.mel.n_fft, frontend.mel.hop_length
    half = n_fft // 2
    count = 1 + (frontend.window + 2 * half - n_fft) // hop
    padded = graph.add("Pad", waveform, np.array([0, half, 0, half]))
    # The graph adds two short arrays, which is smaller than one large constant.
    index = graph.add("Add", np.arange(count)[:, None] * hop, np.arange(n_fft)[None])
    frames = graph.add("Gather", padded, index, axis=1)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    return graph.add("Mul", frames, hann.astype(np.float32)), count


def _factors(n_fft: int) -> tuple[int, int, int]:
    """Returns P and Q of `_power`, as equal as possible, and the number of values of s.

    s counts from 0 to N / (2 P).
    """
    first = max(n for n in range(1, math.isqrt(n_fft) + 1) if n_fft % n == 0)
    return first, n_fft // first, n_fft // 2 // first + 1


def _power(graph: _Graph, frames: str, columns: int, n_fft: int) -> str:
    """Adds the power spectrum of the frames [batch, columns, first * bins], ordered as in `_bins`.

    The Fourier transform has two steps (Cooley & Tukey 1965). With N = n_fft = P Q, sample
    n = Q p + q and bin k = r + P s, it is

        X[r + P s] = Σ_q exp(-2πi q (r + P s) / N) Σ_p exp(-2πi p r / P) x[Q p + q]

    A single matrix would be 15 times larger at N = 1024, slower, and in float32 two to three times
    less accurate at 80 dB below the maximum.
    """
    first, second, bins = _factors(n_fft)
    inner, outer = _fourier_matrices(n_fft)
    x = graph.add("Reshape", frames, np.array([-1, first, second]))
    x = graph.add("MatMul", inner, x)
    x = graph.add("Reshape", x, np.array([-1, 2, first, second]))
    x = graph.add("Transpose", x, perm=[2, 0, 1, 3])
    x = graph.add("Reshape", x, np.array([first, -1, 2 * second]))
    x = graph.add("MatMul", x, outer)
    x = graph.add("Reshape", graph.add("Mul", x, x), np.array([first, -1, 2, bins]))
    x = graph.add("Transpose", graph.add("ReduceSum", x, np.array([2]), keepdims=0), perm=[1, 0, 2])
    return graph.add("Reshape", x, np.array([-1, columns, first * bins]))


def _fourier_matrices(
    n_fft: int,
) -> tuple[Float[np.ndarray, "two_first first"], Float[np.ndarray, "first two_second two_bins"]]:
    """Returns the matrices of the two steps, real parts before imaginary parts."""
    first, second, _ = _factors(n_fft)
    inner = np.exp(-2j * np.pi / first * np.outer(np.arange(first), np.arange(first)))
    turns = np.arange(second)[None, :, None] * _bins(n_fft)[:, None, :] % n_fft
    outer = np.exp(-2j * np.pi / n_fft * turns)
    real = np.concatenate([outer.real, -outer.imag], axis=1)
    imaginary = np.concatenate([outer.imag, outer.real], axis=1)
    return (
        np.concatenate([inner.real, inner.imag]).astype(np.float32),
        np.concatenate([real, imaginary], axis=2).astype(np.float32),
    )


def _bins(n_fft: int) -> Shaped[np.ndarray, "first bins"]:
    """Returns the bins in the order of `_power`; some are above n_fft / 2."""
    first, _, bins = _factors(n_fft)
    return np.arange(first)[:, None] + first * np.arange(bins)[None]


def _filterbank(mel: MelConfig) -> Float[np.ndarray, "first_bins n_mels"]:
    """Returns the mel filters in the order of `_bins`, low frequencies last."""
    bank = mel_filterbank(
        mel.sample_rate, mel.n_fft, mel.n_mels, mel.fmin, mel.fmax or mel.sample_rate / 2
    )
    bins, nyquist = _bins(mel.n_fft).reshape(-1), mel.n_fft // 2
    ordered = bank[::-1, np.minimum(bins, nyquist)]
    return np.where(bins <= nyquist, ordered, 0).T


def _resize_matrix(length: int, size: int) -> Float[np.ndarray, "size length"]:
    """Returns the matrix by which `jax.image.resize` multiplies an axis of `length`."""
    shape = (size, length)
    return np.asarray(jax.image.resize(jnp.eye(length), shape, "linear", antialias=True))


def _add_cnn(graph: _Graph, x: str, rows: int, columns: int, variables: PyTree) -> str:
    """Adds `CNN`; returns its logits."""
    half = np.float32(0.5)
    x = graph.add("Div", graph.add("Sub", x, half), half)
    for layer in range(1, 5):
        x = graph.add("Relu", _add_conv(graph, x, variables, f"conv{layer}", f"bn{layer}"))
        tile = [min(2, rows), min(2, columns)]
        x = graph.add("MaxPool", x, kernel_shape=tile, strides=tile)
        rows, columns = rows // tile[0], columns // tile[1]
    return _add_head(graph, x, variables)


def _add_resnet(graph: _Graph, x: str, rows: int, columns: int, variables: PyTree) -> str:
    """Adds `ResNet18`; returns its logits."""
    # Broadcasting makes gray images RGB, which equals the folded kernel of `Stem`.
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    x = graph.add("Div", graph.add("Sub", x, mean), std)
    x = graph.add("Relu", _add_conv(graph, x, variables, "conv1", "bn1", stride=2))
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for layer in range(4):
        for block in range(2):
            name = f"layer{layer + 1}_{block}"
            block_variables = {collection: tree[name] for collection, tree in variables.items()}
            x = _add_block(graph, x, block_variables, stride=2 if layer > 0 and block == 0 else 1)
    return _add_head(graph, x, variables)


def _add_block(graph: _Graph, x: str, variables: PyTree, stride: int) -> str:
    residual = graph.add("Relu", _add_conv(graph, x, variables, "conv1", "bn1", stride))
    residual = _add_conv(graph, residual, variables, "conv2", "bn2")
    if stride > 1:
        x = _add_conv(graph, x, variables, "downsample_conv", "downsample_bn", stride)
    return graph.add("Relu", graph.add("Add", x, residual))


def _add_conv(
    graph: _Graph, x: str, variables: PyTree, conv: str, norm: str, stride: int = 1
) -> str:
    """Adds a convolution with the following BatchNorm folded into its weights."""
    kernel = variables["params"][conv]["kernel"].astype(np.float64)
    scale, bias = (variables["params"][norm][name] for name in ("scale", "bias"))
    mean, var = (variables["batch_stats"][norm][name] for name in ("mean", "var"))
    factor = scale / np.sqrt(var.astype(np.float64) + BatchNorm.epsilon)
    return graph.add(
        "Conv",
        x,
        (kernel * factor).transpose(3, 2, 0, 1).astype(np.float32),
        (bias - mean * factor).astype(np.float32),
        strides=[stride, stride],
        pads=[len(kernel) // 2] * 4,
    )


def _add_head(graph: _Graph, x: str, variables: PyTree) -> str:
    """Adds the mean over rows and columns and the linear layer."""
    pooled = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    head = variables["params"]["fc"]
    return graph.add("Gemm", pooled, head["kernel"], head["bias"], output="logits")


_NETWORKS: dict[type, Callable[[_Graph, str, int, int, PyTree], str]] = {
    CNN: _add_cnn,
    ResNet18: _add_resnet,
}
"""The function that adds each network to a graph and returns its logits."""
