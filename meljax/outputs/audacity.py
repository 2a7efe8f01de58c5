"""Label tracks of Audacity: a text file for each recording."""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from meljax.evaluation.status import ERROR, OK
from meljax.outputs.rows import Row
from meljax.outputs.text_file import in_one_field, line_writer
from meljax.util.errors import UserError
from meljax.util.files import write_errors

SUFFIX = ".txt"


def line(row: Row) -> str | None:
    """Returns a row as a label; `None` for rows without one."""
    if row["status"] != OK:
        return None
    return f"{row['start']:.6f}\t{row['end']:.6f}\t{in_one_field(row['label'])}"


@contextlib.contextmanager
def folder_writer(out: Path, paths: Sequence[str]) -> Iterator[Callable[[Row], None]]:
    """Yields a function that writes rows to the label tracks of their recordings in `out`.

    Every scored recording gets a file, even an empty one, in the same sub-folder as the recording.
    `paths` are all recordings; the rows of a recording must be written one after the other.

    Raises:
      UserError: a file cannot be written.
    """
    names = track_names(paths)
    with contextlib.ExitStack() as track:
        current, put = "", print

        def write(row: Row) -> None:
            nonlocal current, put
            if row["status"] == ERROR:
                return
            if row["path"] != current:
                track.close()
                file = out / names[row["path"]]
                with write_errors(file.parent, "--out"):
                    file.parent.mkdir(parents=True, exist_ok=True)
                current, put = row["path"], track.enter_context(line_writer(file))
            if (text := line(row)) is not None:
                put(text)

        yield write


def track_names(paths: Sequence[str]) -> Mapping[str, str]:
    """Returns the name of each recording's label track, relative to the folder of all tracks.

    It is the recording's name with the suffix .txt, which replaces its own suffix unless two tracks
    would then have the same name, in upper or lower case.
    """
    paths = list(dict.fromkeys(paths))
    absolute = [os.path.abspath(path) for path in paths]
    above = os.path.commonpath(map(os.path.dirname, absolute))
    names = [os.path.relpath(path, above) for path in absolute]
    stems = [os.path.splitext(name)[0] for name in names]
    while True:
        times = Counter(stem.lower() for stem in stems)
        longer = [
            stem if times[stem.lower()] == 1 else name
            for stem, name in zip(stems, names, strict=True)
        ]
        if longer == stems:
            return {path: stem + SUFFIX for path, stem in zip(paths, stems, strict=True)}
        stems = longer  # a longer name may be that of another track: 'a.wav', 'a.flac', 'a.wav.wav'


def is_track(out: Path) -> bool:
    """Returns whether `out` is a label track, not a folder of them."""
    return out.suffix.lower() == SUFFIX and not out.is_dir()


def check_out(out: Path | None, paths: Sequence[str]) -> None:
    """Raises `UserError` if the label tracks of `paths` cannot be written to `out`."""
    number = len(set(paths))
    is_file = out is None or is_track(out)
    if is_file and number > 1:
        where = "standard output" if out is None else f"--out {out}"
        raise UserError(
            f"an Audacity label track belongs to one recording, and these are {number:,}, too many "
            f"for {where}; use a folder as --out"
        )
    if out is not None and not is_file and out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; use a folder, or a name that ends in {SUFFIX}")
