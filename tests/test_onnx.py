import dataclasses
import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest
from conftest import small_config, tone
from flax import linen as nn
from random_weights import numpy_variables

from meljax.evaluation.forward import Model
from meljax.export import onnx_graph
from meljax.export.classifier import classifier, input_like
from meljax.features.frontend import Frontend, to_images
from meljax.models.cnn import CNN
from meljax.models.resnet import ResNet18
from meljax.runs.load_model import load_model
from meljax.util.devices import make_mesh
from meljax.util.errors import UserError

MEL = small_config().mel
ODD_MEL = dataclasses.replace(
    MEL, n_fft=225, hop_length=91, n_mels=17, fmin=90.0, fmax=3100.0, top_db=55.0
)
FRONTENDS = {
    "audio": Frontend("audio", 2000, 0, 1, 0, MEL),
    "odd audio": Frontend("audio", 1777, 0, 1, 0, ODD_MEL),
    "audio resized": Frontend("audio", 1777, 0, 1, 13, ODD_MEL),
    "gray": Frontend("image", 37, 21, 1, 0, MEL),
    "color resized": Frontend("image", 26, 26, 3, 26, MEL),
    "cropped": Frontend("image", 37, 21, 3, 0, MEL, crop=(4, 3, 2, 1)),
    "cropped at one corner": Frontend("image", 37, 21, 1, 0, MEL, crop=(0, 0, 0, 6)),
    "cropped and resized": Frontend("image", 26, 26, 1, 26, MEL, crop=(4, 3, 2, 1)),
    "a single row": Frontend("image", 45, 1, 3, 0, MEL),
}
CLASSES = ("anna", "børge", "c'est \udcff", "d")


def windows(frontend: Frontend, items: int = 5) -> np.ndarray:
    """Different windows as `to_images` takes them."""
    rng = np.random.default_rng(0)
    if frontend.kind == "audio":
        clips = [tone(150 * 2**i, 1, i)[: frontend.window] * 30_000 for i in range(items)]
        return (np.stack(clips) / 32768).astype(np.float32)
    shape = (items, frontend.window, frontend.height, frontend.channels)
    bands = rng.uniform(size=(items, 1, frontend.height, frontend.channels)) ** 2
    return (rng.integers(0, 256, shape) * bands).astype(np.uint8)


def raw(frontend: Frontend, seen: np.ndarray) -> dict[str, np.ndarray]:
    """Windows as the graph takes them."""
    if frontend.kind == "audio":
        return {"waveform": seen}
    images = seen.swapaxes(1, 2)
    if not frontend.image_size:  # the graph crops
        left, top, right, bottom = frontend.crop
        images = np.pad(images, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=77)
    return {"image": np.ascontiguousarray(images)}


def drawn(frontend: Frontend, seen: np.ndarray) -> jax.Array:
    """Windows as the network takes them."""
    return jax.jit(to_images, static_argnums=0)(frontend, seen)


def with_numpy_variables(network, images):
    """Random variables whose logits differ by several units between items."""
    variables = numpy_variables(network, images)
    raw_logits = np.asarray(logits(network, variables, images))
    head, factor = variables["params"]["fc"], 3 / raw_logits.std(0)
    head["bias"] = (head["bias"] - raw_logits.mean(0)) * factor
    head["kernel"] *= factor
    return variables


@functools.partial(jax.jit, static_argnums=0)
def logits(network, variables, images) -> jax.Array:
    return network.apply(variables, images, jnp.ones(len(images)), False)


def run(model: onnx.ModelProto, frontend: Frontend, seen: np.ndarray, *names: str):
    """The outputs `names` of onnxruntime for the windows `seen`."""
    inner = [onnx.helper.make_empty_tensor_value_info(n) for n in names if n != "probabilities"]
    model.graph.output.extend(inner)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(names, raw(frontend, seen))


def make_onnx(network, frontend, variables, temperature=1.0) -> onnx.ModelProto:
    model = Model(network, frontend, CLASSES, make_mesh(), variables)
    return onnx_graph.onnx_model(model, temperature)


def test_a_model_trained_in_bfloat16_is_exported_in_float32(square_run):
    trained = load_model(square_run)
    model, shape = trained.model, input_like(trained.model.frontend, 3).shape
    lower = trained._replace(model=model._replace(network=model.network.clone(dtype="bfloat16")))
    x = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    one, two = (np.asarray(jax.jit(classifier(each))(x)) for each in (trained, lower))
    np.testing.assert_array_equal(one, two)
    assert onnx_graph.serialize(lower)[0] == onnx_graph.serialize(trained)[0]


def test_a_network_without_an_onnx_translation_is_refused():
    with pytest.raises(UserError, match="--format onnx: Dense cannot be converted"):
        make_onnx(nn.Dense(4), FRONTENDS["gray"], {})


@pytest.mark.parametrize("network", [CNN(4, width=4), ResNet18(4, width=4)])
@pytest.mark.parametrize("kind", FRONTENDS)
def test_probabilities_equal_those_of_the_model(network, kind):
    frontend = FRONTENDS[kind]
    seen = windows(frontend)
    images = drawn(frontend, seen)
    variables = with_numpy_variables(network, images)
    expected = np.asarray(jax.nn.log_softmax(logits(network, variables, images) / 1.5))
    # A flat or constant softmax would agree with any graph.
    assert len(set(expected.argmax(1))) > 1
    assert np.ptp(expected, 0).min() > 1.5
    model = make_onnx(network, frontend, variables, 1.5)
    (whole,) = run(model, frontend, seen, "probabilities")
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, np.exp(expected), atol=1e-5)
    np.testing.assert_allclose(np.log(whole), expected, atol=1e-4)
    (single,) = run(model, frontend, seen[3:4], "probabilities")
    np.testing.assert_allclose(single, whole[3:4], atol=1e-6)


def small_model(frontend: Frontend) -> onnx.ModelProto:
    network = CNN(4, width=4)
    variables = with_numpy_variables(network, drawn(frontend, windows(frontend)))
    return make_onnx(network, frontend, variables)


@pytest.mark.parametrize("n_fft", [16, 17, 225, 512])
def test_the_front_end_gives_the_same_spectrogram(n_fft):
    """Includes values 80 dB below a pure tone, silence, and `n_fft` with various factors."""
    mel = dataclasses.replace(MEL, n_fft=n_fft, n_mels=5 if n_fft < 20 else 20)
    frontend = Frontend("audio", 2000, 0, 1, 0, mel)
    seen = windows(frontend)
    seen[1] = 0
    seen[2] = np.round(30_000 * np.sin(np.arange(2000)))
    seen[3, :-1] = 0  # only one sample, which the last frame weights little
    (image,) = run(small_model(frontend), frontend, seen, "network_input")
    expected = np.moveaxis(drawn(frontend, seen), 3, 1)
    assert not image[1].any()
    assert image[[0, 2, 3]].max((1, 2, 3)) == pytest.approx(1)
    np.testing.assert_allclose(image, expected, atol=5e-5)


def test_the_reference_implementation_of_onnx_agrees():
    """The graph does not depend on onnxruntime."""
    frontend = FRONTENDS["audio resized"]
    model, seen = small_model(frontend), windows(frontend, 2)
    (expected,) = run(model, frontend, seen, "probabilities")
    (found,) = onnx.reference.ReferenceEvaluator(model).run(["probabilities"], raw(frontend, seen))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "rate", "given_as"),
    [
        ("audio", "8000", ("waveform", "tensor(float)", ["batch", 2000])),
        ("gray", None, ("image", "tensor(uint8)", ["batch", 21, 37, 1])),
    ],
)
def test_the_file_describes_its_input(kind, rate, given_as):
    frontend = FRONTENDS[kind]
    model = small_model(frontend)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(properties["classes"]) == list(CLASSES)
    assert properties.get("sample_rate") == rate
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (given,), (result,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == given_as
    assert (result.name, result.shape) == ("probabilities", ["batch", 4])


def test_without_onnx_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"pip install '\.\[onnx\]'"):
        make_onnx(CNN(4), FRONTENDS["gray"], {})


def test_a_model_larger_than_an_onnx_file_is_refused():
    """A prime `n_fft` has no factors, so the Fourier transform needs one large matrix."""
    mel = dataclasses.replace(MEL, n_fft=65_521)
    frontend = Frontend("audio", 2000, 0, 1, 0, mel)
    with pytest.raises(UserError, match="at most 2 GiB, and this model would take 32"):
        make_onnx(CNN(4), frontend, {})
    # A number takes four bytes. Broadcast, so that they need not exist.
    variables = {"params": np.broadcast_to(np.float32(0), 600_000_000)}
    with pytest.raises(UserError, match=r"at most 2 GiB, and this model would take 2\.2$"):
        make_onnx(CNN(4), dataclasses.replace(frontend, mel=MEL), variables)
