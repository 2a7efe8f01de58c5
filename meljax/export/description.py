"""The description of an exported model, FILE.json: classes, input, output and origin."""

from typing import Any

from meljax.export.classifier import inner_crop, input_like
from meljax.features.frontend import Frontend
from meljax.models.layers import IMAGENET_MEAN, IMAGENET_STD
from meljax.runs.load_model import TrainedModel
from meljax.util.version import versions


def describe(trained: TrainedModel, form: str, run: str) -> dict[str, Any]:
    """Returns the content of FILE.json; `form` is 'stablehlo', 'onnx' or 'torch'."""
    all_versions, is_torch = versions(["jax"]), form == "torch"
    frontend = trained.model.frontend
    torch_input = {"shape": ["batch", 3, "height", "width"]} | _cropped(frontend, _TORCH)
    return {
        "format": form,
        "classes": list(trained.model.classes),
        "input": torch_input if is_torch else _input(frontend),
        "output": {
            "name": "logits" if is_torch else "probabilities",
            "dtype": "float32",
            "shape": ["batch", len(trained.model.classes)],
        },
        "temperature": trained.temperature,
        "epoch": trained.epoch,
        "versions": {name: all_versions[name] for name in ("meljax", "jax")},
        "run": run,
    }


def _input(frontend: Frontend) -> dict[str, Any]:
    like = input_like(frontend, 1)
    layout = {"dtype": str(like.dtype), "shape": ["batch", *like.shape[1:]]}
    if frontend.kind == "audio":
        rate = {"sample_rate": frontend.mel.sample_rate}
        return {
            "name": "waveform",
            **layout,
            **rate,
            "meaning": _AUDIO + (_SILENCE if frontend.skip_silence else ""),
        }
    if frontend.image_size:
        return {"name": "image", **layout, **_cropped(frontend, _RESIZED)}
    whole = any(inner_crop(frontend))
    meaning = {"crop": list(frontend.crop), "meaning": _WHOLE} if whole else {"meaning": _IMAGE}
    return {"name": "image", **layout, **meaning}


def _cropped(frontend: Frontend, meaning: str) -> dict[str, Any]:
    """Returns `meaning` of images that are cropped outside of the model, with the crop if any."""
    if not any(frontend.crop):
        return {"meaning": meaning}
    return {"crop": list(frontend.crop), "meaning": f"{_CROP_FIRST} {meaning}"}


_WINDOWS = (
    "An input of another length is cut or padded. An input shorter than 1.5 windows has a single "
    "window that starts at (length - window) // 2, rounded down even if negative; {padding} pads "
    "an input shorter than the window at both ends. A longer input has 1 + (length - window) // "
    "(window // 2) windows, evenly spaced from its start to its end (starts are rounded to whole "
    "numbers), whose probabilities are averaged."
)

_AUDIO = (
    "one window of mono samples (the mean of the channels) at sample_rate, with any gain. "
    f"{_WINDOWS.format(padding='silence (0)')}"
)

_SILENCE = (
    " Windows whose samples are all within 1/32768 of their mean (1 is full scale) are silent and "
    "left out. If a single window is silent, those at the start and at the end are used."
)

_IMAGE_WINDOWS = _WINDOWS.format(padding="its darkest color")

_IMAGE = (
    "rows of pixels, the highest frequencies first, gray or RGB as the shape says, one window of "
    f"columns. {_IMAGE_WINDOWS}"
)

_WHOLE = (
    "rows of pixels, the highest frequencies first, gray or RGB as the shape says, of a whole "
    "image: the model itself cuts off the pixels of crop (left, top, right, bottom), and sees the "
    "window between them. Lengths count columns without the crop, and the input of the window that "
    f"begins at a start are the columns of the whole image from start on. {_IMAGE_WINDOWS}"
)

_CROP_FIRST = (
    "First cut the pixels of crop (left, top, right, bottom) off every image, before it is resized."
)

_RESIZED = (
    "rows of pixels, the highest frequencies first, gray or RGB as the shape says; an image of "
    "any other size is resized to it, bilinear and antialiased (Pillow's BILINEAR)."
)

_TORCH = (
    "images in 0…1, gray ones repeated three times, minus mean and divided by std: "
    f"{IMAGENET_MEAN} and {IMAGENET_STD}. Front end and temperature are not included."
)
