import functools

import jax
import jax.numpy as jnp
import numpy as np
import plain_forms
import pytest
from flax import linen as nn
from random_weights import numpy_variables

from meljax.config import ModelConfig
from meljax.evaluation.metrics import cross_entropy
from meljax.models import batch_norm, layers
from meljax.models.batch_norm import BatchNorm
from meljax.models.layers import max_pool_2x2, max_pool_3x3, relu
from meljax.models.registry import build

pytestmark = pytest.mark.accelerator


def shapes(name: str, classes: int, channels: int = 3, size: tuple[int, int] = (32, 32)):
    network = build(ModelConfig(name=name), classes)

    def make():
        images = jnp.zeros((1, *size, channels))
        return network.init_with_output(jax.random.key(0), images, jnp.ones(1), False)

    return jax.eval_shape(make)


@pytest.mark.parametrize(
    ("name", "classes", "channels", "count"),
    [
        ("resnet18", 1000, 3, 11_689_512),
        ("resnet18", 24, 3, 11_188_824),
        ("cnn", 24, 1, 394_488),
        ("cnn", 24, 3, 395_064),
    ],
)
def test_parameter_counts_are_the_published_ones(name, classes, channels, count):
    _, variables = shapes(name, classes, channels)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count


def test_resnet_has_torchvisions_122_tensors():
    _, variables = shapes("resnet18", 1000)
    # torch keeps a counter with each of the 20 BatchNorms.
    assert len(jax.tree.leaves(variables)) + 20 == 122
    assert variables["params"]["layer2_0"]["downsample_conv"]["kernel"].shape == (1, 1, 64, 128)
    assert "downsample_conv" not in variables["params"]["layer1_0"]


@pytest.mark.parametrize("name", ["resnet18", "cnn"])
@pytest.mark.parametrize("size", [(1, 1), (7, 40), (33, 97), (128, 118)])
def test_images_of_any_size_give_logits(name, size):
    logits, _ = shapes(name, 5, size=size)
    assert logits.shape == (1, 5)


def test_strided_convolutions_are_padded_as_in_torch():
    """`SAME` padding would give the same shape, shifted by one pixel."""
    images = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype(np.float32)
    for size in (3, 1):
        layer = layers.conv(2, size, 2, "float32", layers.normal_fan_out, "conv")
        made = jax.jit(layer.init_with_output)(jax.random.key(1), images)
        stem, variables = jax.device_get(made)
        kernel = variables["params"]["kernel"]
        half = size // 2
        padded = np.pad(images[0], ((half, half), (half, half), (0, 0)))
        assert stem.shape == (1, 8, 8, 2)
        for row, column in ((0, 0), (3, 5), (7, 7)):
            patch = padded[2 * row : 2 * row + size, 2 * column : 2 * column + size]
            expected = np.einsum("hwc,hwco->o", patch, kernel)
            np.testing.assert_allclose(stem[0, row, column], expected, rtol=2e-4, atol=2e-5)


def test_max_pool_drops_an_odd_edge_and_keeps_a_single_row():
    image = np.arange(5 * 7, dtype=np.float32).reshape(1, 5, 7, 1)
    pool = jax.jit(max_pool_2x2)
    pooled = np.asarray(pool(image))
    np.testing.assert_array_equal(pooled[0, :, :, 0], [[8, 10, 12], [22, 24, 26]])
    assert pool(image[:, :1]).shape == (1, 1, 3, 1)


@pytest.mark.parametrize("shape", [(2, 8, 10, 3), (2, 7, 9, 3), (1, 1, 5, 2), (1, 2, 1, 2)])
@pytest.mark.parametrize("size", [2, 3])
def test_max_pools_equal_window_reductions(shape, size):
    """Values, gradients (also of equal values), and NaN."""
    ours = {2: max_pool_2x2, 3: max_pool_3x3}[size]
    border = (0, 0) if size == 2 else (1, 1)
    window = tuple(min(n, size) if size == 2 else size for n in shape[1:3])
    steps = tuple(min(n, 2) if size == 2 else 2 for n in shape[1:3])

    def plain(x):
        return nn.max_pool(x, window, steps, (border, border))

    @jax.jit
    def results(x):
        y, pull = jax.vjp(ours, x)
        expected, theirs = jax.vjp(plain, x)
        direction = jnp.sin(jnp.arange(y.size, dtype=float)).reshape(y.shape)
        return (y, *pull(direction)), (expected, *theirs(direction))

    rng = np.random.default_rng(0)
    for values in (-rng.permutation(np.prod(shape)), rng.integers(0, 3, np.prod(shape))):
        x = values.reshape(shape).astype(np.float32)
        (y, slope), (expected, derived) = results(x)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_allclose(slope, derived, atol=1e-6)
    row, column = (2 * (n // 2) - 1 if size == 2 and n > 1 else -1 for n in shape[1:3])
    spoiled = x.copy()
    spoiled[0, row, column, 0] = np.nan
    (y, _), (expected, _) = results(spoiled)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    assert np.isnan(y).any()


@pytest.mark.parametrize(("size", "channels"), [((14, 10), 1), ((13, 15), 3), ((1, 2), 1)])
def test_the_stems_convolution_equals_xlas(size, channels):
    """Values, gradients, and NaN."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, channels)).astype(np.float32)
    kernel = rng.normal(size=(7, 7, channels, 4)).astype(np.float32)

    def plain(x, kernel):
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), ((3, 3), (3, 3)), dimension_numbers=names
        )

    @jax.jit
    def results(x, kernel):
        y, pull = jax.vjp(layers.conv_7x7_stride_2, x, kernel)
        expected, theirs = jax.vjp(plain, x, kernel)
        return (y, pull(y)), (expected, theirs(y))

    (y, slopes), (expected, derived) = results(x, kernel)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    for a, b in zip(slopes, derived, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-2)
    spoiled = x.copy()
    spoiled[0, 0, 0, 0] = np.nan
    (bad, _), (expected, _) = results(spoiled, kernel)
    np.testing.assert_array_equal(np.isnan(bad), np.isnan(expected))


def batch(items: int) -> np.ndarray:
    return np.random.default_rng(0).normal(3, 2, (items, 4, 5, 6)).astype(np.float32)


@jax.jit
def normalize_first_batch(images, weight):
    """Returns the output of a new `BatchNorm` in training, and its statistics after that."""
    layer = BatchNorm()
    variables = layer.init(jax.random.key(0), images, weight, True)
    out, updated = layer.apply(variables, images, weight, True, mutable=["batch_stats"])
    return out, updated["batch_stats"]


def test_batchnorm_normalizes_and_moves_the_statistics_as_torch_does():
    images = batch(8)
    out, moved = normalize_first_batch(images, np.ones(8, np.float32))
    mean, var = images.mean((0, 1, 2)), images.var((0, 1, 2))
    np.testing.assert_allclose(out, (images - mean) / np.sqrt(var + 1e-5), atol=1e-5)
    count = 8 * 4 * 5
    np.testing.assert_allclose(moved["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(moved["var"], 0.9 + 0.1 * var * count / (count - 1), rtol=1e-5)


@pytest.mark.parametrize("name", ["cnn", "resnet18"])
def test_in_bfloat16_the_logits_are_nearly_the_same(name):
    """Weights, statistics, logits and gradients stay float32."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.uniform(size=(6, 40, 36, 1)), jnp.float32)

    def network(compute_dtype):
        return build(ModelConfig(name=name, width=4, compute_dtype=compute_dtype), 5)

    def results(compute_dtype, variables):
        def apply(params):
            changed = variables | {"params": params}
            arguments = (changed, images, jnp.ones(6), True)
            return network(compute_dtype).apply(*arguments, mutable=["batch_stats"])

        (logits, updated), pull = jax.vjp(apply, variables["params"])
        (gradients,) = pull((jnp.eye(6, 5), jax.tree.map(jnp.zeros_like, updated)))
        return logits, updated, gradients

    quickly = {"xla_backend_optimization_level": 0}  # to compile, not to run
    variables = numpy_variables(network("float32"), images)
    compiled = jax.jit(results, static_argnums=0, compiler_options=quickly)
    both = jax.device_get([compiled(each, variables) for each in ("float32", "bfloat16")])
    assert {leaf.dtype for leaf in jax.tree.leaves(both)} == {np.dtype("float32")}
    (logits, updated, gradients), (same, moved, bfloat16_gradients) = both
    assert np.abs(same - logits).max() > 0
    np.testing.assert_allclose(same, logits, atol=0.1 * np.abs(logits).max())
    for a, b in zip(jax.tree.leaves(updated), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(b, a, rtol=0.05, atol=0.02)
    flat = [
        np.concatenate([x.ravel() for x in jax.tree.leaves(g)])
        for g in (gradients, bfloat16_gradients)
    ]
    cosine = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
    assert cosine > 0.9


def plain_batchnorm(x, scale, bias, weight):
    """The usual form: two passes, and the gradient that JAX derives."""
    share = (weight / (weight.sum() * x.shape[1] * x.shape[2]))[:, None, None, None]
    mean = (x * share).sum((0, 1, 2))[None, None, None]
    var = (jnp.square(x - mean) * share).sum((0, 1, 2))[None, None, None]
    return (x - mean) / jnp.sqrt(var + 1e-5) * scale[None, None, None] + bias[None, None, None]


def our_batchnorm(x, scale, bias, weight):
    """`BatchNorm` in training."""
    stats = {"mean": jnp.zeros(6), "var": jnp.ones(6)}
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": stats}
    return BatchNorm().apply(variables, x, weight, True, mutable=["batch_stats"])[0]


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(function, x, scale, bias, weight, direction):
    """Returns the normalized `x`, and the gradients of `x`, `scale` and `bias`."""
    value, pull = jax.vjp(lambda *arguments: function(*arguments, weight), x, scale, bias)
    return value, *pull(direction)


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_batchnorms_explicit_gradient_equals_the_derived_one(padding, offset):
    images = batch(8) + np.float32(offset)
    weight = (np.arange(8) < 8 - padding).astype(np.float32)
    rng = np.random.default_rng(1)
    scale, bias = rng.normal(size=(2, 6)).astype(np.float32)
    direction = rng.normal(size=images.shape).astype(np.float32)
    direction *= weight[:, None, None, None]
    arguments = images, scale, bias, weight, direction
    (one, *slopes), (other, *derived) = (
        jax.device_get(value_and_gradients(function, *arguments))
        for function in (our_batchnorm, plain_batchnorm)
    )
    real = slice(8 - padding)
    for a, b in zip([one[real], *slopes], [other[real], *derived], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-3 if offset else 2e-5)


def test_nan_stays_nan_after_batchnorm():
    for value in (np.nan, np.inf):
        spoiled = batch(4)
        spoiled[1, 2, 3, 4] = value
        out, moved = jax.device_get(normalize_first_batch(spoiled, np.ones(4, np.float32)))
        assert np.isnan(out[..., 4]).all()
        assert np.isfinite(out[..., :4]).all()
        assert not np.isfinite(moved["var"][4])


def test_batchnorm_ignores_padding():
    spoiled = batch(8)
    spoiled[5:] = 1e6
    weight = np.array([1, 1, 1, 1, 1, 0, 0, 0], np.float32)
    out, moved = jax.device_get(normalize_first_batch(spoiled, weight))
    alone, expected = normalize_first_batch(spoiled[:5], weight[:5])
    np.testing.assert_allclose(out[:5], alone, atol=1e-5)
    for name in ("mean", "var"):
        np.testing.assert_allclose(moved[name], expected[name], rtol=1e-5)


def test_batchnorm_in_evaluation_uses_the_running_statistics():
    images = batch(3)
    scale, bias, mean, var = (np.full(6, value, np.float32) for value in (2, 1, 3, 4))
    variables = {
        "params": {"scale": scale, "bias": bias},
        "batch_stats": {"mean": mean, "var": var},
    }
    apply = jax.jit(BatchNorm().apply, static_argnums=3)
    out = apply(variables, images, np.ones(3, np.float32), False)
    np.testing.assert_allclose(out, (images - 3) / np.sqrt(4 + 1e-5) * 2 + 1, atol=1e-5)


def test_the_stem_of_gray_images_equals_that_of_repeated_channels():
    """Values and gradients, at the border and inside, of the folded kernel and the whole one."""
    gray = np.random.default_rng(0).random((2, 21, 18, 1), np.float32)
    stem = layers.Stem(6)
    variables = jax.jit(stem.init)(jax.random.key(1), gray)
    assert variables["params"]["kernel"].shape == (7, 7, 3, 6)
    repeated = np.repeat(gray, 3, -1)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def slope(variables, images):
        out = stem.apply(variables, images)
        return jnp.sin(out).sum(), out

    (_, one), folded = slope(variables, gray)
    (_, other), whole = slope(variables, repeated)
    np.testing.assert_allclose(one, other, atol=1e-5)
    folded, whole = folded["params"]["kernel"], whole["params"]["kernel"]
    np.testing.assert_allclose(folded, whole, rtol=1e-4, atol=1e-4)


def test_gray_and_rgb_images_give_the_same_logits():
    network = build(ModelConfig(name="resnet18", width=4), 5)
    rng = np.random.default_rng(0)
    gray, weight = rng.random((2, 40, 40, 1), np.float32), np.ones(2, np.float32)
    init = functools.partial(network.init, train=False)
    like = jax.eval_shape(init, jax.random.key(1), gray, weight)
    variables = jax.tree.map(lambda x: rng.uniform(0.1, 0.5, x.shape).astype(x.dtype), like)
    apply = jax.jit(network.apply, static_argnums=3)
    one, three = (apply(variables, np.repeat(gray, n, -1), weight, False) for n in (1, 3))
    np.testing.assert_allclose(one, three, rtol=1e-4)


def test_batchnorm_keeps_its_statistics_after_a_single_value():
    image = np.full((1, 1, 1, 6), 3, np.float32)
    out, moved = normalize_first_batch(image, np.ones(1, np.float32))
    np.testing.assert_array_equal(out, 0)
    np.testing.assert_array_equal(moved["var"], 1)
    np.testing.assert_array_equal(moved["mean"], 0)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_few_channel_convolution_equals_xlas(channels):
    """Values, gradients, and NaN."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 7, 9, channels)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, channels, 4)).astype(np.float32)

    def plain(x, kernel):
        y = jax.lax.conv(x.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1), (1, 1), "SAME")
        return y.transpose(0, 2, 3, 1)

    @jax.jit
    def results(x, kernel):
        y, pull = jax.vjp(layers.conv_3x3, x, kernel)
        expected, theirs = jax.vjp(plain, x, kernel)
        return (y, pull(2 * y)), (expected, theirs(2 * expected))

    (y, slopes), (expected, derived) = results(x, kernel)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    for a, b in zip(slopes, derived, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)
    spoiled = x.copy()
    spoiled[0, 3, 3, 0] = np.nan
    (bad, _), _ = jax.device_get(results(spoiled, kernel))
    assert np.isnan(bad[0, 2:5, 2:5]).all()
    assert not np.isnan(bad[1]).any()


@pytest.mark.parametrize("sums", [batch_norm._sums_on_cpu, batch_norm._sums_on_gpu])
@pytest.mark.parametrize("shape", [(3, 8, 8, 5), (2, 14, 14, 3), (1, 1, 1, 4), (4, 13, 17, 2)])
def test_the_channel_sums_equal_plain_sums(shape, sums):
    """Any number of pixels, also primes, and NaN."""
    values = np.random.default_rng(0).normal(3, 1, (2, *shape)).astype(np.float32)
    values[0, 0, 0, 0, 1] = np.nan
    found = jax.jit(sums)(*values)
    np.testing.assert_allclose(found, values.astype(np.float64).sum((1, 2, 3)), rtol=1e-5)


def test_the_stem_with_ones_as_a_channel_equals_that_with_two_convolutions():
    rng = np.random.default_rng(0)
    images = rng.random((2, 15, 12, 1), np.float32)
    kernels = rng.normal(size=(2, 7, 7, 1, 4)).astype(np.float32)
    one, two = (
        jax.jit(each, static_argnums=0)("float32", images, *kernels)
        for each in (layers._one_convolution, layers._two_convolutions)
    )
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)


def test_relu_equals_that_of_jax():
    """Values, gradients, and NaN."""

    @jax.jit
    def results(x):
        y, pull = jax.vjp(relu, x)
        expected, theirs = jax.vjp(jax.nn.relu, x)
        direction = jnp.arange(8).astype(x.dtype)
        return (y, *pull(direction)), (expected, *theirs(direction))

    x = np.array([-np.inf, -2.0, -0.0, 0.0, 1e-30, 3.0, np.inf, np.nan])
    for dtype in (np.float32, jnp.bfloat16):
        (y, slope), (expected, derived) = jax.device_get(results(x.astype(dtype)))
        assert y.dtype == expected.dtype
        np.testing.assert_array_equal(y.astype(np.float32), expected.astype(np.float32))
        np.testing.assert_array_equal(slope[:-1], derived[:-1])


@pytest.mark.parametrize("name", ["cnn", "resnet18"])
def test_the_faster_forms_train_like_the_usual_ones(name, monkeypatch):
    """Loss curves of the whole network from the same weights on the same images."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.random((6, 64, 64, 1)), jnp.float32)
    labels = jnp.array([0, 1, 2, 0, 1, 2])
    network = build(ModelConfig(name=name, width=4), 3)
    quickly = {"xla_backend_optimization_level": 0}  # to compile, not to run
    begin = numpy_variables(network, images)

    def curve() -> list[float]:
        def loss_fn(params, stats):
            variables = {"params": params, "batch_stats": stats}
            logits, moved = network.apply(
                variables, images, jnp.ones(6), train=True, mutable=["batch_stats"]
            )
            return cross_entropy(logits, labels).mean(), moved["batch_stats"]

        @functools.partial(jax.jit, compiler_options=quickly)
        def step(params, stats):
            (loss, stats), slope = jax.value_and_grad(loss_fn, has_aux=True)(params, stats)
            return jax.tree.map(lambda p, g: p - 0.05 * g, params, slope), stats, loss

        params, stats, losses = begin["params"], begin["batch_stats"], []
        for _ in range(8):
            params, stats, loss = step(params, stats)
            losses.append(float(loss))
        return losses

    faster = curve()
    plain_forms.use(monkeypatch)
    plain = curve()
    np.testing.assert_allclose(faster[:4], plain[:4], rtol=1e-4)
    np.testing.assert_allclose(faster, plain, rtol=0.05)  # rounding grows from step to step
    assert faster[-1] < 0.8 * faster[0]
