"""Refuses to score windows that do not fit in memory."""

import contextlib

from meljax.evaluation.forward import Model, forward
from meljax.features.frontend import Frontend, to_images
from meljax.util import devices, memory
from meljax.util.errors import UserError


def scoring_bytes(model: Model) -> int:
    """Returns the bytes that a device needs at least to score a batch; see `memory.need`."""
    count = model.mesh.size
    batch = devices.scoring_batch(count) // count
    return memory.need(
        lambda variables, windows: forward(
            model.network, variables, to_images(model.frontend, windows)
        ),
        model.variables,
        model.frontend.windows(batch),
    ).largest


def check_memory(model: Model) -> contextlib.AbstractContextManager:
    """Returns a context in which running out of memory becomes a `UserError`.

    Raises:
      UserError: a batch of windows needs more memory than is free on a device.
    """
    needed, free = scoring_bytes(model), memory.free_on(model.mesh.devices.flat[0])
    batch = devices.scoring_batch(model.mesh.size) // model.mesh.size
    text = (
        f"scoring needs at least {memory.size(needed)} of memory for a batch of {batch} "
        f"{windows_text(model.frontend)} on each device, and {memory.size(free)} were free; train "
        f"a model with a smaller {window_key(model.frontend)}"
    )
    if needed > free:
        raise UserError(text)
    return memory.explained(text)


def window_key(frontend: Frontend) -> str:
    """Returns the key that sets the size of a window."""
    return "data.image_size" if frontend.image_size else "data.window"


def windows_text(frontend: Frontend) -> str:
    """Returns what a batch consists of, such as 'windows of 3.00 s'."""
    if frontend.kind == "audio":
        return f"windows of {frontend.window / frontend.mel.sample_rate:,.2f} s"
    if frontend.image_size:
        return f"images of {frontend.image_size} × {frontend.image_size} pixels"
    return f"windows of {frontend.window} × {frontend.height} pixels"
