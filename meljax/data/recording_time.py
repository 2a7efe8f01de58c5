"""The time at which a recording started, read from its file name as recorders write it."""

import datetime
import os
import re
from collections.abc import Iterable, Mapping

_DATE_TIME = re.compile(
    r"(?<![0-9A-Za-z])(\d{8})[_T-](\d{6})(\.\d{3})?[TZ]?(?![0-9A-Za-z])", re.ASCII
)
"""'20240517_043000', optionally with milliseconds and AudioMoth's T (triggered) or Z."""

_HEX = re.compile(r"[0-9A-F]{8}")
"""Old AudioMoth names: seconds since 1970, in hexadecimal."""

_YEARS = range(1970, 2100)
_HEX_YEARS = range(2016, 2031)  # AudioMoth was first made in 2016


def recording_times(paths: Iterable[str]) -> Mapping[str, datetime.datetime]:
    """Returns the start of each recording whose name holds it, in the time zone of the recorder.

    `20240517_043000` may be a part of the name. Names of eight hexadecimal digits, such as
    `5B6F2C30.WAV`, are AudioMoth's and in UTC. Those without letters may be ordinary numbers: they
    count only if a hexadecimal name in the same folder has a letter.
    """
    paths = list(paths)
    found = {path: time for path in paths if (time := _date_time(path))}
    hexadecimal = {path: time for path in paths if (time := _hex_time(path))}
    folders = {
        os.path.dirname(path)
        for path in hexadecimal
        if re.search("[A-F]", os.path.splitext(os.path.basename(path))[0])
    }
    found |= {p: time for p, time in hexadecimal.items() if os.path.dirname(p) in folders}
    return found


def _date_time(path: str) -> datetime.datetime | None:
    for match in _DATE_TIME.finditer(os.path.splitext(os.path.basename(path))[0]):
        date, time, fraction = match.groups()
        try:
            found = datetime.datetime.strptime(date + time, "%Y%m%d%H%M%S")
        except ValueError:  # month 13
            continue
        if found.year in _YEARS:
            return found + datetime.timedelta(seconds=float(fraction or 0))
    return None


def _hex_time(path: str) -> datetime.datetime | None:
    stem, suffix = os.path.splitext(os.path.basename(path))
    if suffix != ".WAV" or not _HEX.fullmatch(stem):
        return None
    found = datetime.datetime.fromtimestamp(int(stem, 16), datetime.UTC).replace(tzinfo=None)
    return found if found.year in _HEX_YEARS else None
