"""Images and sounds for pages: their formats, and URLs that contain them."""

import base64
import io
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float32
from matplotlib.figure import Figure

from meljax.features.samples import narrowed

_TYPES = {".png": "image/png", ".wav": "audio/wav", ".csv": "text/csv;charset=utf-8"}


def png(figure: Figure, scale: int = 1) -> bytes:
    """Returns a PNG of a figure at `scale` times its dots per inch."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=scale * figure.dpi)
    return file.getvalue()


def data_url(name: str, content: bytes) -> str:
    """Returns a data URL with the content of the file `name`."""
    kind = _TYPES[Path(name).suffix]
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def wav(samples: Float32[np.ndarray, " samples"], rate: int) -> bytes:
    """Returns a 16-bit WAV file of samples, where 1 is full scale; louder ones are scaled down."""
    file = io.BytesIO()
    # 16-bit recordings are written unchanged.
    content = narrowed(samples / max(np.float32(1), np.abs(samples).max()))
    soundfile.write(file, content, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()
