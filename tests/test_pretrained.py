"""ResNet-18 computes what PyTorch's does; initial weights from files, downloads or at random."""

import contextlib
import hashlib
import http.server
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, SHARED

from meljax.config import ModelConfig
from meljax.evaluation.metrics import cross_entropy
from meljax.models.pretrained import initial_weights, name_map
from meljax.models.pretrained.initial_weights import WeightsOrigin
from meljax.models.pretrained.weights_file import read_weights, write_weights
from meljax.models.resnet import ResNet18
from meljax.util.errors import UserError

DATA = Path(__file__).parent / "data"
TINY = DATA / "tiny_resnet18.pth"
NETWORK = ResNet18(classes=6, width=4)
LAYERS = ("layer1", "layer2", "layer3", "layer4")


def shapes(network: ResNet18):
    def init():
        images = jnp.zeros((1, 32, 32, 3))
        return network.init(jax.random.key(0), images, jnp.ones(1), False)

    return jax.eval_shape(init)


@pytest.fixture(scope="module")
def tiny():
    """PyTorch's random weights of a narrow network, its variables, and what PyTorch computes."""
    weights, _ = read_weights(TINY)
    variables = name_map.from_torch(weights, shapes(NETWORK), new_head=False)
    return weights, variables, np.load(DATA / "tiny_resnet18.npz")


def forward(network: ResNet18, variables, images: np.ndarray):
    """Returns the logits, and the activations after the stem and each layer."""

    @jax.jit
    def apply(variables, images):
        logits, seen = network.apply(
            variables,
            images,
            jnp.ones(len(images)),
            False,
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        seen = seen["intermediates"]
        stem = jax.nn.relu(seen["bn1"]["__call__"][0])
        padded = jnp.pad(stem, ((0, 0), (1, 1), (1, 1), (0, 0)))
        pooled = jax.lax.reduce_window(
            padded, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID"
        )
        activations = {"stem": pooled}
        activations |= {layer: seen[f"{layer}_1"]["__call__"][0] for layer in LAYERS}
        return logits, activations

    with jax.default_matmul_precision("highest"):
        return jax.device_get(apply(variables, images.astype(np.float32) / 255))


@pytest.mark.accelerator
def test_logits_and_activations_equal_torchs(tiny):
    _, variables, stored = tiny
    logits, activations = forward(NETWORK, variables, stored["images"])
    assert np.abs(logits - stored["logits"]).max() < 1e-4
    for name, activation in activations.items():
        expected = stored[name]
        assert activation.shape == expected.shape, name
        assert np.abs(activation - expected).max() < 1e-4 * np.abs(expected).max(), name


@pytest.mark.accelerator
def test_statistics_and_gradients_of_a_step_equal_torchs(tiny):
    _, variables, stored = tiny

    @jax.jit
    def step(variables, images, labels):
        def loss(params):
            logits, updated = NETWORK.apply(
                variables | {"params": params}, images, jnp.ones(4), True, mutable=["batch_stats"]
            )
            return cross_entropy(logits, labels).mean(), updated

        return jax.grad(loss, has_aux=True)(variables["params"])

    images = stored["images"].astype(np.float32) / 255
    gradients, updated = step(variables, images, stored["labels"])
    after = name_map.to_torch({"params": gradients} | updated, 0)
    for name in stored.files:
        kind, _, key = name.partition(":")
        if kind == "after":
            np.testing.assert_allclose(after[key], stored[name], rtol=1e-4, atol=1e-6)
        elif kind == "gradient":
            scale = np.abs(stored[name]).max()
            np.testing.assert_allclose(after[key], stored[name], atol=1e-4 * scale)


def test_the_map_has_torchvisions_122_names(tiny):
    weights, _, _ = tiny
    assert list(name_map.name_map()) == list(weights)
    assert len(name_map.name_map()) == 122


def test_every_leaf_is_mapped_once():
    places = [
        (leaf.collection, *leaf.path) for leaf in name_map.name_map().values() if leaf.collection
    ]
    leaves = jax.tree_util.tree_flatten_with_path(shapes(NETWORK))[0]
    assert len(places) == len(set(places)) == len(leaves)
    assert set(places) == {tuple(entry.key for entry in path) for path, _ in leaves}


def test_to_torch_inverts_from_torch(tiny):
    weights, variables, _ = tiny
    back = name_map.to_torch(variables, 7)
    assert back.keys() == weights.keys()
    for name, array in weights.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


def test_a_new_head_keeps_its_weights_and_the_rest_is_loaded(tiny):
    weights, variables, _ = tiny
    other = ResNet18(classes=9, width=4)
    drawn = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), shapes(other))
    loaded = name_map.from_torch(weights, drawn, new_head=True)
    np.testing.assert_array_equal(loaded["params"]["fc"]["kernel"], drawn["params"]["fc"]["kernel"])
    np.testing.assert_array_equal(
        loaded["params"]["layer4_1"]["conv2"]["kernel"],
        variables["params"]["layer4_1"]["conv2"]["kernel"],
    )


def test_names_and_shapes_that_do_not_fit_are_listed(tiny):
    weights, _, _ = tiny
    like = shapes(NETWORK)
    renamed = dict(weights)
    renamed["conv9.weight"] = renamed.pop("conv1.weight")
    with pytest.raises(UserError, match=r"missing conv1\.weight; unknown conv9\.weight"):
        name_map.from_torch(renamed, like, new_head=False)
    few = {name: array for name, array in weights.items() if not name.startswith("layer")}
    with pytest.raises(UserError, match=r"layer1\.\d\.\w+\.\w+ and 108 more; unknown nothing"):
        name_map.from_torch(few, like, new_head=False)
    reshaped = weights | {"layer2.0.conv1.weight": np.zeros((8, 4, 5, 5), np.float32)}
    with pytest.raises(
        UserError, match=r"layer2\.0\.conv1\.weight \(8, 4, 5, 5\) for \(8, 4, 3, 3\)"
    ):
        name_map.from_torch(reshaped, like, new_head=False)
    with pytest.raises(UserError, match="shapes differ in fc"):
        name_map.from_torch(weights, shapes(ResNet18(classes=9, width=4)), new_head=False)


def test_safetensors_are_read_as_they_were_written(tiny, tmp_path):
    weights, _, _ = tiny
    file = tmp_path / "weights.safetensors"
    write_weights(file, weights, {"classes": "[]"})
    back, digest = read_weights(file)
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert back.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(back[name], array)


@pytest.mark.parametrize("fault", ["header", "size", "truncated", "empty", "nan", "missing"])
def test_a_faulty_file_gives_one_line(tiny, tmp_path, fault):
    weights, _, _ = tiny
    file = tmp_path / "weights.safetensors"
    spoiled = weights | {"conv1.weight": weights["conv1.weight"] * np.float32(np.nan)}
    write_weights(file, spoiled if fault == "nan" else weights, {})
    data = file.read_bytes()
    if fault == "header":
        data = data.replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1)
    elif fault == "size":
        data = (2**62).to_bytes(8, "little") + data[8:]
    file.write_bytes({"truncated": data[:-7], "empty": b""}.get(fault, data))
    if fault == "missing":
        file.unlink()
    with pytest.raises(UserError) as caught:
        read_weights(file)
    assert "weights.safetensors: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def server(monkeypatch):
    """Serves `content` in place of the published weights; counts the requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        content = b""
        claimed = None  # Content-Length; '' sends none
        status = 200
        location = None  # where other paths are redirected to
        pause = 0.0
        piece = 100  # bytes between two pauses
        message = None
        requests = 0

        def do_GET(self):
            Handler.requests += 1
            if self.location and self.path != self.location:
                self.send_response(302)
                self.send_header("Location", self.location)
                self.end_headers()
                return
            self.send_response(self.status, self.message)
            if self.claimed != "":
                self.send_header("Content-Length", self.claimed or str(len(self.content)))
            self.end_headers()
            with contextlib.suppress(OSError):  # the client may have disconnected
                piece = self.piece if self.pause else 2**20
                for start in range(0, len(self.content), piece):
                    self.wfile.write(self.content[start : start + piece])
                    self.wfile.flush()
                    time.sleep(self.pause)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{running.server_port}/published.pth"
        monkeypatch.setattr(initial_weights, "IMAGENET_URL", address)
        digest = hashlib.sha256(b"weights").hexdigest()
        monkeypatch.setattr(initial_weights, "IMAGENET_SHA256", digest)
        yield Handler
        running.shutdown()


LIMITS = initial_weights.TimeLimits(silence=5.0, total=5.0)


def test_published_weights_are_downloaded_once(server, tmp_path, monkeypatch, capfd):
    server.content = b"weights"
    assert initial_weights.imagenet_weights(tmp_path / "cache", LIMITS) == b"weights"
    assert capfd.readouterr() == ("downloading published.pth\n", "")
    # The cached file needs neither the network nor the library.
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert initial_weights.imagenet_weights(tmp_path / "cache", LIMITS) == b"weights"
    assert capfd.readouterr() == ("", "")
    assert server.requests == 1
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["published.pth"]


def test_a_redirect_is_followed(server, tmp_path):
    server.content, server.location = b"weights", "/elsewhere"
    assert initial_weights.imagenet_weights(tmp_path, LIMITS) == b"weights"
    assert server.requests == 2


def test_the_whole_sha256_of_the_published_file_is_pinned():
    digest = initial_weights.IMAGENET_SHA256
    assert len(bytes.fromhex(digest)) == 32
    assert Path(initial_weights.IMAGENET_URL).stem == f"resnet18-{digest[:8]}"
    assert initial_weights.MAX_BYTES > 46_830_571  # its size


@pytest.mark.parametrize("content", [b"something else", b""])
def test_a_download_with_wrong_content_is_refused(server, tmp_path, content):
    server.content = content
    assert "(wrong content: its sha256 is not the published one)" in refused(tmp_path, LIMITS)


def test_a_sha256_that_only_begins_as_the_published_one_is_refused(server, tmp_path, monkeypatch):
    server.content = b"weights"
    begins = initial_weights.IMAGENET_SHA256[:8] + "0" * 56
    monkeypatch.setattr(initial_weights, "IMAGENET_SHA256", begins)
    assert "(wrong content: its sha256" in refused(tmp_path, LIMITS)


@pytest.mark.parametrize(
    ("faults", "limits", "reason"),
    [
        ({"content": b"wei", "claimed": "7"}, {}, "3 bytes read, 4 more expected"),
        ({"content": b"weights" * 200, "pause": 0.05}, {"total": 0.3}, "takes too long"),
        ({"content": b"weights" * 200, "pause": 2.0}, {"silence": 0.2}, "timed out"),
        ({"content": b"w" * 9999, "claimed": ""}, {}, "is too large: 5,120 bytes"),
        ({"content": b"w" * 9999, "claimed": "9999"}, {}, "is too large: 9,999 bytes"),
        # Every byte comes within the limit of silence, but the whole does not come in time.
        ({"content": b"w" * 60, "pause": 0.1, "piece": 1}, {"total": 0.5}, "takes too long"),
        ({"status": 500, "message": "\x1b" + "x" * 999}, {}, "500 Server Error: ?x"),
        ({"content": b"weights", "claimed": "long"}, {}, "invalid literal"),
        ({"content": b"weights", "status": 404}, {}, "404 Client Error"),
        ({"location": "published.pth"}, {}, "Exceeded 30 redirects"),
    ],
)
def test_a_download_that_fails_is_one_line_and_keeps_nothing(
    server, tmp_path, monkeypatch, faults, limits, reason
):
    monkeypatch.setattr(initial_weights, "MAX_BYTES", 4500)
    for name, value in faults.items():
        setattr(server, name, value)
    started = time.monotonic()
    message = refused(tmp_path, LIMITS._replace(**limits))
    assert time.monotonic() - started < 10
    assert reason in message


def refused(folder: Path, limits: initial_weights.TimeLimits) -> str:
    """Returns the message of a download that fails; asserts that no file is left in `folder`."""
    with pytest.raises(UserError) as caught:
        initial_weights.imagenet_weights(folder, limits)
    assert not list(folder.iterdir())
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 500
    assert message.startswith("ImageNet weights cannot be downloaded (")
    assert message.endswith("or set model.init to a file or to 'scratch'")
    return message


@pytest.mark.parametrize(
    ("init", "limits"), [("auto", initial_weights.SHORT), ("imagenet", initial_weights.LONG)]
)
def test_only_a_run_that_needs_the_download_waits_long(monkeypatch, tmp_path, init, limits):
    asked = []

    def download(cache, limits):
        asked.append(limits)
        return TINY.read_bytes()

    monkeypatch.setattr(initial_weights, "imagenet_weights", download)
    monkeypatch.setattr(initial_weights, "from_torch", lambda weights, random, new_head: random)
    initial_weights.initial_variables(ModelConfig(init=init), {}, tmp_path)
    assert asked == [limits]
    assert initial_weights.SHORT < initial_weights.LONG


def test_a_damaged_file_in_the_cache_is_downloaded_again(server, tmp_path):
    server.content = b"weights"
    initial_weights.imagenet_weights(tmp_path, LIMITS)
    next(tmp_path.iterdir()).write_bytes(b"wei")
    assert initial_weights.imagenet_weights(tmp_path, LIMITS) == b"weights"
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"weights"]
    assert server.requests == 2


def test_weights_that_cannot_be_cached_are_used_with_a_warning(server, tmp_path, capsys):
    server.content = b"weights"
    (tmp_path / "file").write_bytes(b"")
    assert initial_weights.imagenet_weights(tmp_path / "file" / "cache", LIMITS) == b"weights"
    assert "cannot be cached" in capsys.readouterr().err


def test_without_a_connection_imagenet_fails_and_auto_uses_random_weights(tmp_path):
    drawn = {"params": {}, "batch_stats": {}}
    with pytest.raises(UserError, match=r"\(\[Errno \d+\] Connection refused\).*model\.init"):
        initial_weights.initial_variables(ModelConfig(init="imagenet"), drawn, tmp_path)
    variables, origin = initial_weights.initial_variables(ModelConfig(), drawn, tmp_path)
    assert variables is drawn
    assert origin.kind == "random"
    assert origin.describe().startswith("random: ImageNet weights cannot be downloaded")


def test_only_a_download_imports_its_library():
    code = (
        "import sys; import meljax.workflows.predict, meljax.workflows.train; "
        "assert not {'pooch', 'requests', 'scipy.stats'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("config", [ModelConfig(init="scratch"), ModelConfig(name="cnn")])
def test_nothing_is_downloaded_for_random_weights(server, tmp_path, config):
    drawn = {"params": {}, "batch_stats": {}}
    expected = drawn, WeightsOrigin("random")
    assert initial_weights.initial_variables(config, drawn, tmp_path) == expected
    assert server.requests == 0


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("bn1.running_var", -np.ones(4, np.float32), "negative variances"),
        ("bn1.weight", np.ones(4, np.int32), "not floating point"),
        ("bn1.weight", np.full(4, 1e300), "not finite float32"),
        ("bn1.num_batches_tracked", np.zeros(5), "not a single whole number"),
    ],
)
def test_values_that_weights_cannot_have_are_refused(tiny, tmp_path, name, array, message):
    file = tmp_path / "weights.safetensors"
    write_weights(file, tiny[0] | {name: array}, {})
    with pytest.raises(UserError, match=message):
        read_weights(file)


def test_half_and_double_precision_become_single(tiny, tmp_path):
    file = tmp_path / "weights.safetensors"
    double = {n: a.astype(np.float64) if a.ndim else a for n, a in tiny[0].items()}
    write_weights(file, double, {})
    back, _ = read_weights(file)
    assert {array.dtype for array in back.values() if array.ndim} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(back["conv1.weight"], tiny[0]["conv1.weight"])


def test_a_head_for_other_features_is_refused(tiny):
    other = tiny[0] | {"fc.weight": np.zeros((9, 31), np.float32)}
    with pytest.raises(UserError, match=r"fc\.weight \(9, 31\)"):
        name_map.from_torch(other, shapes(NETWORK), new_head=True)


@pytest.mark.skipif(not (SHARED / "weights").is_dir(), reason="no shared weights here")
def test_the_published_network_equals_torchs():
    weights, _ = read_weights(SHARED / "weights" / "resnet18_imagenet.pth")
    network = ResNet18(classes=1000)
    variables = name_map.from_torch(weights, shapes(network), new_head=False)
    stored = np.load(SHARED / "weights" / "check.npz")
    logits, activations = forward(network, variables, stored["images"])
    assert np.abs(logits - stored["logits"]).max() <= 1e-3
    np.testing.assert_array_equal(logits.argmax(1), stored["logits"].argmax(1))
    for name, activation in activations.items():
        expected = stored[name].astype(np.float32)
        difference = np.abs(activation[:2] - expected).max()
        assert difference <= 1e-3 * np.abs(expected).max(), name


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        (WeightsOrigin("random"), "random"),
        (WeightsOrigin("random", reason="offline"), "random: offline"),
        (
            WeightsOrigin("imagenet", "resnet18-f37072fd.pth", "f37072fd" + "0" * 56),
            "ImageNet (resnet18-f37072fd.pth, sha256 f37072fd), fc.weight and fc.bias random",
        ),
        (
            WeightsOrigin("file", "mine.pth", "0123456789"),
            "file (mine.pth, sha256 01234567), fc.weight and fc.bias random",
        ),
    ],
)
def test_the_origin_of_weights_is_described(origin, words):
    assert origin.describe() == words


def test_weights_from_a_file_keep_the_random_head(tiny, tmp_path):
    drawn = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), shapes(NETWORK))
    config = ModelConfig(width=4, init=str(TINY))
    variables, origin = initial_weights.initial_variables(config, drawn, tmp_path)
    assert origin == WeightsOrigin("file", TINY.name, hashlib.sha256(TINY.read_bytes()).hexdigest())
    np.testing.assert_array_equal(variables["params"]["fc"]["kernel"], 0.5)
    np.testing.assert_array_equal(
        variables["params"]["conv1"]["kernel"], tiny[1]["params"]["conv1"]["kernel"]
    )


def test_a_weights_file_may_be_below_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(TINY, tmp_path / "mine.pth")
    config = ModelConfig(width=4, init="~/mine.pth")
    initial_weights.check_weights_file(config)
    _, origin = initial_weights.initial_variables(config, shapes(NETWORK), tmp_path)
    assert origin.name == "mine.pth"


def test_imagenet_weights_are_not_downloaded_for_another_width(server, tmp_path):
    drawn = {"params": {}, "batch_stats": {}}
    _, origin = initial_weights.initial_variables(ModelConfig(width=32), drawn, tmp_path)
    assert origin == WeightsOrigin("random", reason="ImageNet weights are for model.width=64")
    assert server.requests == 0


def test_a_weights_file_that_does_not_exist_is_named():
    initial_weights.check_weights_file(ModelConfig(init="imagenet"))
    initial_weights.check_weights_file(ModelConfig(init=str(TINY)))
    with pytest.raises(UserError, match=r"model\.init: 'nowhere\.pth' does not exist"):
        initial_weights.check_weights_file(ModelConfig(init="nowhere.pth"))
