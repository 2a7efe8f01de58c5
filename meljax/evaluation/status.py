"""The status of a prediction."""

from typing import Literal

OK = "ok"
"""The label is the most probable class."""

UNKNOWN = "unknown"
"""The most probable class is less probable than its threshold, so there is no label."""

BACKGROUND = "background"
"""The most probable class is the background, `data.background`, so there is no label."""

SILENCE = "silence"
"""There is no sound, so nothing was scored."""

ERROR = "error"
"""The file cannot be used."""

Status = Literal["ok", "unknown", "background", "silence", "error"]
