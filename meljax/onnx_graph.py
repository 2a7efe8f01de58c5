"""A trained model as one ONNX graph: from raw input to probabilities, front end included.

Written from the flax variables, for these two networks alone, with plain operators and float32, so
that not only onnxruntime can run it. Pictures are NCHW inside, as ONNX has them.
"""

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float, PyTree, Shaped

from meljax.config import MelConfig
from meljax.errors import UserError
from meljax.frontend import Frontend
from meljax.melspec import POWER_FLOOR, mel_filterbank
from meljax.models.batchnorm import BatchNorm
from meljax.models.cnn import CNN
from meljax.models.normalise import IMAGENET_MEAN, IMAGENET_STD
from meljax.models.resnet import ResNet18

if TYPE_CHECKING:
    import onnx

OPSET = 17
IR_VERSION = 8
"""Of 2022: onnxruntime reads it since 1.12."""

NEEDS_EXTRA = "--format onnx needs the extra: pip install 'meljax[onnx]'"

MOST_BYTES = 2**31 - 2**20
"""Protocol buffers end at 2 GiB; the last MiB is for all that is no array."""


def onnx_model(
    network: nn.Module,
    frontend: Frontend,
    variables: PyTree,
    temperature: float,
    classes: Sequence[str],
) -> "onnx.ModelProto":
    """Returns the graph of `softmax(logits / temperature)`, checked by onnx.

    Its input is `waveform`, float32 [batch, window], samples in -1…1 (int16 / 32768), or `image`,
    uint8 [batch, height, width, channel], the top row first. Its output is `probabilities`, float32
    [batch, classes]. `batch` is free. The metadata hold, as JSON, the names of the classes
    ('classes') and for sound the sample rate in Hz ('sample_rate').

    Args:
      network: `CNN` or `ResNet18`.
      frontend: makes its pictures.
      variables: `{'params': ..., 'batch_stats': ...}` of the network.
      temperature: above 0; 1 leaves the logits as they are.
      classes: names, in the order of the logits.

    Raises:
      UserError: onnx is not installed, or the model is too large for the format.
    """
    onnx = _import_onnx()
    _check_size(frontend, variables)
    graph = _Graph(onnx)
    picture, rows, columns = (_sound if frontend.kind == "sound" else _image)(graph, frontend)
    layers = {CNN: _cnn, ResNet18: _resnet}[type(network)]
    logits = layers(graph, picture, rows, columns, jax.tree.map(np.asarray, variables))
    scaled = graph.add("Div", logits, np.float32(temperature))
    graph.add("Softmax", scaled, output="probabilities", axis=1)
    shape = ["batch", len(classes)]
    result = onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, shape)
    model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "meljax", graph.inputs, [result], graph.arrays),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="meljax",
    )
    onnx.helper.set_model_props(model, _metadata(frontend, classes))
    onnx.checker.check_model(model, full_check=True)
    return model


def _import_onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise UserError(NEEDS_EXTRA) from None
    return onnx


def _metadata(frontend: Frontend, classes: Sequence[str]) -> dict[str, str]:
    # json escapes all but ASCII: names of folders need not be valid Unicode.
    names = {"classes": json.dumps(list(classes))}
    if frontend.kind == "image":
        return names
    return names | {"sample_rate": json.dumps(frontend.mel.sample_rate)}


def _check_size(frontend: Frontend, variables: PyTree) -> None:
    numbers = sum(leaf.size for leaf in jax.tree.leaves(variables))
    if frontend.kind == "sound":
        first, second, bins = _factors(frontend.mel.n_fft)
        numbers += first * 4 * second * bins
    if 4 * numbers > MOST_BYTES:
        raise UserError(
            f"an ONNX file holds at most 2 GiB, and this model would take {4 * numbers / 2**30:.1f}"
        )


class _Graph:
    """Collects what a graph consists of.

    Attributes:
      nodes: operators, each after those that it takes from.
      inputs: what the graph is given.
      arrays: constants.
    """

    def __init__(self, onnx: Any):
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.arrays: list[Any] = []

    def input(self, name: str, dtype: type, shape: Sequence[int], doc: str) -> str:
        """Adds an input with a free batch in front of `shape`; returns its name."""
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        shape = ["batch", *shape]
        self.inputs.append(self._onnx.helper.make_tensor_value_info(name, kind, shape, doc))
        return name

    def add(
        self,
        operator: str,
        *inputs: str | Shaped[np.ndarray, "..."] | np.generic,
        output: str = "",
        **attributes: Any,
    ) -> str:
        """Adds an operator; returns the name of its one output.

        Args:
          operator: ONNX's name of it.
          *inputs: names, or arrays, which become constants.
          output: name of the output; empty: made up.
          **attributes: the operator's.
        """
        output = output or f"{operator}_{len(self.nodes)}"
        names = []
        for i, value in enumerate(inputs):
            names.append(value if isinstance(value, str) else f"{output}_{i}")
            if not isinstance(value, str):
                array = self._onnx.numpy_helper.from_array(np.asarray(value), names[-1])
                self.arrays.append(array)
        self.nodes.append(self._onnx.helper.make_node(operator, names, [output], **attributes))
        return output


def _image(graph: _Graph, frontend: Frontend) -> tuple[str, int, int]:
    """Adds the front end of pictures; returns pictures in 0…1 [batch, channel, rows, columns]."""
    size = frontend.image_size
    rows, columns = (size, size) if size else (frontend.height, frontend.window)
    shape = (rows, columns, frontend.channels)
    image = graph.input("image", np.uint8, shape, "the top row first; grey or RGB")
    upright = graph.add("Transpose", image, perm=[0, 3, 1, 2])
    number = graph.add("Cast", upright, to=1)  # float32
    return graph.add("Div", number, np.float32(255), output="picture"), rows, columns


def _sound(graph: _Graph, frontend: Frontend) -> tuple[str, int, int]:
    """Adds the front end of recordings; returns pictures in 0…1 [batch, 1, rows, columns]."""
    mel = frontend.mel
    doc = f"mono, {mel.sample_rate} Hz, samples in -1…1 (int16 / 32768)"
    waveform = graph.input("waveform", np.float32, [frontend.window], doc)
    # To a peak of 1; digital silence, whose peak is 0, stays as it is.
    peak = graph.add("ReduceMax", graph.add("Abs", waveform), axes=[1])
    heard = graph.add("Sign", peak)
    waveform = graph.add(
        "Div", waveform, graph.add("Add", peak, graph.add("Sub", np.float32(1), heard))
    )
    frames, columns = _frames(graph, waveform, frontend)
    power = graph.add("MatMul", _power(graph, frames, columns, mel.n_fft), _filterbank(mel))
    level = graph.add("Log", graph.add("Max", power, np.float32(POWER_FLOOR)))
    loudest = graph.add("ReduceMax", level, axes=[1, 2])
    share = np.float32(10 / math.log(10) / mel.top_db)
    relative = graph.add("Mul", graph.add("Sub", level, loudest), share)
    bright = graph.add("Relu", graph.add("Add", relative, np.float32(1)))
    # Of silence the level is its own maximum; it is dark all the same.
    bright = graph.add("Mul", bright, graph.add("Unsqueeze", heard, np.array([2])))
    upright = graph.add("Transpose", bright, perm=[0, 2, 1])
    size, rows = frontend.image_size, mel.n_mels
    if size:
        upright = graph.add("MatMul", _resize_matrix(rows, size), upright)
        upright = graph.add("MatMul", upright, _resize_matrix(columns, size).T)
        rows = columns = size
    return graph.add("Unsqueeze", upright, np.array([1]), output="picture"), rows, columns


def _frames(graph: _Graph, waveform: str, frontend: Frontend) -> tuple[str, int]:
    """Adds frames through the Hann window [batch, columns, n_fft]; returns also how many."""
    n_fft, hop = frontend.mel.n_fft, frontend.mel.hop_length
    half = n_fft // 2
    count = 1 + (frontend.window + 2 * half - n_fft) // hop
    padded = graph.add("Pad", waveform, np.array([0, half, 0, half]))
    # Two short lists instead of a long table of places.
    place = graph.add("Add", np.arange(count)[:, None] * hop, np.arange(n_fft)[None])
    frames = graph.add("Gather", padded, place, axis=1)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    return graph.add("Mul", frames, hann.astype(np.float32)), count


def _factors(n_fft: int) -> tuple[int, int, int]:
    """Returns the two nearest factors of `n_fft`, and how many multiples of the first one to keep.

    The multiples are 0, 1, … up to the last one that half of `n_fft` reaches.
    """
    first = max(n for n in range(1, math.isqrt(n_fft) + 1) if n_fft % n == 0)
    return first, n_fft // first, n_fft // 2 // first + 1


def _power(graph: _Graph, frames: str, columns: int, n_fft: int) -> str:
    """Adds the power spectrum of the frames [batch, columns, first * bins], see `_bins`.

    The Fourier transform in two steps (Cooley & Tukey 1965). With N = n_fft = P Q, sample
    n = Q p + q and bin k = r + P s, that is

        X[r + P s] = Σ_q exp(-2πi q (r + P s) / N) Σ_p exp(-2πi p r / P) x[Q p + q]

    A single matrix would be fifteen times as large at N = 1024, slower, and in float32 two to three
    times less exact 80 dB below the maximum.
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
    """Returns the matrices of both steps; real and imaginary parts stand one after the other."""
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
    """Returns which bin of the spectrum stands where; some lie beyond half of `n_fft`."""
    first, _, bins = _factors(n_fft)
    return np.arange(first)[:, None] + first * np.arange(bins)[None]


def _filterbank(mel: MelConfig) -> Float[np.ndarray, "first_bins n_mels"]:
    """Returns the mel filters for `_power`'s order of bins, low frequencies last."""
    bank = mel_filterbank(
        mel.sample_rate, mel.n_fft, mel.n_mels, mel.fmin, mel.fmax or mel.sample_rate / 2
    )
    bins, nyquist = _bins(mel.n_fft).reshape(-1), mel.n_fft // 2
    ordered = bank[::-1, np.minimum(bins, nyquist)]
    return np.where(bins <= nyquist, ordered, 0).T


def _resize_matrix(length: int, size: int) -> Float[np.ndarray, "size length"]:
    """Returns what `jax.image.resize` multiplies an axis by."""
    shape = (size, length)
    return np.asarray(jax.image.resize(jnp.eye(length), shape, "linear", antialias=True))


def _cnn(graph: _Graph, x: str, rows: int, columns: int, variables: PyTree) -> str:
    """Adds `CNN`; returns its logits."""
    half = np.float32(0.5)
    x = graph.add("Div", graph.add("Sub", x, half), half)
    for layer in range(1, 5):
        x = graph.add("Relu", _conv_norm(graph, x, variables, f"conv{layer}", f"bn{layer}"))
        tile = [min(2, rows), min(2, columns)]
        x = graph.add("MaxPool", x, kernel_shape=tile, strides=tile)
        rows, columns = rows // tile[0], columns // tile[1]
    return _head(graph, x, variables)


def _resnet(graph: _Graph, x: str, rows: int, columns: int, variables: PyTree) -> str:
    """Adds `ResNet18`; returns its logits."""
    # Grey pictures are repeated by broadcasting, not folded into the kernel: `Stem` says why that
    # is the same.
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    x = graph.add("Div", graph.add("Sub", x, mean), std)
    x = graph.add("Relu", _conv_norm(graph, x, variables, "conv1", "bn1", stride=2))
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for layer in range(4):
        for block in range(2):
            name = f"layer{layer + 1}_{block}"
            own = {collection: tree[name] for collection, tree in variables.items()}
            x = _block(graph, x, own, stride=2 if layer > 0 and block == 0 else 1)
    return _head(graph, x, variables)


def _block(graph: _Graph, x: str, variables: PyTree, stride: int) -> str:
    residual = graph.add("Relu", _conv_norm(graph, x, variables, "conv1", "bn1", stride))
    residual = _conv_norm(graph, residual, variables, "conv2", "bn2")
    if stride > 1:
        x = _conv_norm(graph, x, variables, "downsample_conv", "downsample_bn", stride)
    return graph.add("Relu", graph.add("Add", x, residual))


def _conv_norm(
    graph: _Graph, x: str, variables: PyTree, conv: str, norm: str, stride: int = 1
) -> str:
    """Adds a convolution that holds the BatchNorm behind it."""
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


def _head(graph: _Graph, x: str, variables: PyTree) -> str:
    """Adds the mean over rows and columns and the linear layer."""
    pooled = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    head = variables["params"]["fc"]
    return graph.add("Gemm", pooled, head["kernel"], head["bias"], output="logits")
