"""TFDS sets by name: found, fetched, opened. The only file that imports tensorflow-datasets.

A name looks like `tfds:NAME[/CONFIG][:VERSION]`. Sets lie in one folder (`data.tfds_dir`), each in
`NAME[/CONFIG]/VERSION`; what TFDS knows and does not lie there is fetched and prepared by it.
"""

import contextlib
import difflib
import importlib
import importlib.util
import io
import json
import os
import re
import textwrap
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from meljax import progress
from meljax.errors import UserError

PREFIX = "tfds:"
VERSION = r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*)){2}"
CONNECT_SECONDS = 10
EXTRA = "'meljax[tfds-tf]'"
OF_EXTRA = ("tensorflow", "pydub")
"""What TFDS needs for Audio features, for tfrecord files, and to make most sets."""


class Name(NamedTuple):
    """What is named; '' where it is left open."""

    name: str
    config: str
    version: str

    def __str__(self) -> str:
        config = f"/{self.config}" if self.config else ""
        return f"{PREFIX}{self.name}{config}" + (f":{self.version}" if self.version else "")


def is_name(path: str) -> bool:
    """Returns whether `path` names a TFDS set."""
    return path.startswith(PREFIX)


def parse(path: str) -> Name:
    """Takes 'tfds:NAME[/CONFIG][:VERSION]' apart.

    Raises:
      UserError: it is none.
    """
    pattern = rf"{PREFIX}([A-Za-z]\w*)(?:/([\w.\-]+))?(?::({VERSION}))?"
    match = re.fullmatch(pattern, path, re.ASCII)
    if not match:
        raise UserError(
            f"data.path {path!r} is not of the form tfds:NAME[/CONFIG][:VERSION], with a version "
            "like 1.0.0"
        )
    name, config, version = (part or "" for part in match.groups())
    if re.fullmatch(VERSION, config) and not version:
        raise UserError(f"data.path {path!r}: did you mean {Name(name, '', config)}?")
    return Name(name, config, version)


def library() -> Any:
    """Returns the module `tensorflow_datasets`; importing it takes half a second."""
    return importlib.import_module("tensorflow_datasets")


def hide_accelerators() -> None:
    """Keeps TensorFlow, if it is there, from taking an accelerator's memory away from JAX."""
    if importlib.util.find_spec("tensorflow"):
        with contextlib.suppress(RuntimeError):  # it has begun already
            importlib.import_module("tensorflow").config.set_visible_devices([], "GPU")


def root_of(tfds_dir: str) -> Path:
    """Returns the folder in which sets lie: `tfds_dir`, or if that is empty TFDS's own."""
    return Path(os.path.expanduser(tfds_dir or library().core.constants.DATA_DIR))


def known() -> set[str]:
    """Returns the names of the sets that TFDS itself can make."""
    return set(library().list_builders(with_community_datasets=False))


def pin(path: str, tfds_dir: str) -> str:
    """Returns the full name of a set, with its version; fetches the set if it does not lie here.

    Raises:
      UserError: there is no such set, or it cannot be had.
    """
    return str(_locate(parse(path), root_of(tfds_dir)))


def open_set(path: str, tfds_dir: str) -> Any:
    """Returns a set as a `tfds.core.DatasetBuilder`; fetches it if it does not lie here.

    Raises:
      UserError: there is no such set, it cannot be had, or it is damaged.
    """
    root = root_of(tfds_dir)
    name = _locate(parse(path), root)
    return open_folder(name, folder_of(root, name))


def open_folder(name: Name, folder: Path) -> Any:
    """Returns the set `name`, which lies in `folder`; see `open_set`."""
    remedy = f"; if it is damaged, remove {folder} and make or fetch it anew"
    with errors_for_people(name, remedy), _quietly():
        builder = library().builder_from_directory(folder)
        # Both may be read only when they are asked for, and fail then.
        builder.info.features  # noqa: B018
        if builder.info.metadata is not None:
            builder.info.metadata.items()
    return builder


@contextlib.contextmanager
def errors_for_people(name: Name | str, remedy: str = "") -> Iterator[None]:
    """Turns whatever TFDS raises about a set into `UserError`; `remedy` ends its message."""
    try:
        yield
    except ImportError as error:
        package = error.name.split(".")[0] if error.name else first_line(error)
        raise UserError(
            f"{name} needs {package}: pip install {EXTRA if package in OF_EXTRA else package}"
        ) from error
    except UserError:
        raise
    except Exception as error:  # damaged files, and sets of all kinds, raise nearly anything
        raise UserError(f"{name} cannot be used ({first_line(error)}){remedy}") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps to itself what is printed, such as a banner where TensorFlow is missing."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def first_line(error: Exception) -> str:
    """Returns what an error says, in short."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return textwrap.shorten(lines[0] if lines else type(error).__name__, 200, placeholder=" …")


# Finding


def prepared(root: Path) -> list[Name]:
    """Returns the sets that lie in `root`, sorted by name, configuration and version."""
    found = []
    for depth in ("*/*", "*/*/*"):
        for info in root.glob(f"{depth}/dataset_info.json"):
            name, *config, version = info.parent.relative_to(root).parts
            if re.fullmatch(VERSION, version):
                found.append(Name(name, *(config or [""]), version))
    return sorted(found, key=lambda each: (each.name, each.config, _numbers(each.version)))


def folder_of(root: Path, name: Name) -> Path:
    """Returns where a set lies."""
    return root / name.name / name.config / name.version


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _locate(wanted: Name, root: Path) -> Name:
    """Returns the full name of a set that lies in `root`, if need be because TFDS put it there."""
    _check_readable(root)
    here = prepared(root)
    same = [name for name in here if name.name == wanted.name]
    if fitting := _fitting(wanted, same, root):
        return fitting[-1]
    makeable = known()
    if wanted.name in makeable:
        return _prepare(wanted, root)
    if same:
        held = ", ".join(map(str, same))
        raise UserError(f"data.path: {str(root)!r} holds {held}, and no {wanted}; name one of them")
    names = sorted({name.name for name in here} | makeable)
    near = difflib.get_close_matches(wanted.name.lower(), names, n=1, cutoff=0.75)
    hint = f"did you mean {PREFIX}{near[0]}?" if near else "is it elsewhere?"
    raise UserError(
        f"data.path: no set {wanted.name!r} lies in {str(root)!r} (data.tfds_dir), and TFDS itself "
        f"knows none; {hint}"
    )


def _check_readable(root: Path) -> None:
    try:
        os.listdir(root)
    except FileNotFoundError:
        return  # TFDS may make it
    except OSError as error:
        raise UserError(f"data.tfds_dir: {str(root)!r}: {error.strerror}") from None


def _fitting(wanted: Name, same: Sequence[Name], root: Path) -> list[Name]:
    """Returns those of the sets of one name that are meant, the newest last.

    Raises:
      UserError: it is open which configuration is meant.
    """
    configs = {name.config for name in same}
    config = wanted.config or _default_config(root / wanted.name)
    if same and not wanted.config and config not in configs:
        if len(configs) > 1:
            raise UserError(
                f"data.path: {str(root)!r} holds {wanted.name} in several configurations; name one "
                f"of {', '.join(PREFIX + f'{wanted.name}/{each}' for each in sorted(configs))}"
            )
        (config,) = configs
    return [n for n in same if n.config == config and wanted.version in ("", n.version)]


def _default_config(folder: Path) -> str:
    """Returns the configuration that TFDS recorded as the default; '' where there is none."""
    try:
        facts = json.loads((folder / ".config" / "metadata.json").read_text(encoding="utf-8"))
        return str(facts["default_config_name"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


# Fetching


def _prepare(wanted: Name, root: Path) -> Name:
    """Lets TFDS fetch and prepare a set, in array_record format; returns its full name."""
    tfds = library()
    chosen = {key: value for key, value in wanted._asdict().items() if value and key != "name"}
    with errors_for_people(wanted), _quietly():
        maker = tfds.builder_cls(wanted.name)
        _check_config(wanted, list(maker.builder_configs))
        builder = maker(**chosen, data_dir=root, file_format="array_record")
    name = Name(builder.name, builder.builder_config_name or "", str(builder.version))
    progress.say(f"fetching {name} into {folder_of(root, name)}")
    _check_reachable(name, builder, root / "downloads")
    if not progress.interactive():
        tfds.disable_progress_bar()
    with (
        errors_for_people(name),
        _downloads_explained(name, builder, root / "downloads"),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        hide_accelerators()
        settings = tfds.download.DownloadConfig(try_download_gcs=False)
        try:
            builder.download_and_prepare(download_config=settings)
        except Exception:
            if name not in prepared(root):  # another process may have been faster
                raise
    return name


def _check_config(wanted: Name, configs: Sequence[str]) -> None:
    """Raises `UserError` for a configuration that a set does not have."""
    if wanted.config and wanted.config not in configs:
        near = difflib.get_close_matches(wanted.config, configs, n=1) or configs[:1]
        hint = f"; it has {len(configs)}, such as {near[0]!r}" if near else ""
        raise UserError(f"{wanted}: {wanted.name} has no configuration {wanted.config!r}{hint}")


def _check_reachable(name: Name, builder: Any, downloads: Path) -> None:
    """Raises `UserError` at once where TFDS would try for minutes to reach a network."""
    import requests  # of TFDS

    manual = downloads / "manual"
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not (manual.is_dir() and any(manual.iterdir())):
        raise UserError(
            f"{name} must be fetched by hand: do as it says above, and place it in {str(manual)!r}",
            textwrap.dedent(builder.MANUAL_DOWNLOAD_INSTRUCTIONS).strip().splitlines(),
        )
    missing = _missing(builder, downloads)
    if missing:
        with _downloads_explained(name, builder, downloads):
            requests.head(next(iter(missing)), timeout=CONNECT_SECONDS).close()


@contextlib.contextmanager
def _downloads_explained(name: Name, builder: Any, downloads: Path) -> Iterator[None]:
    """Says which files to place where, where the network does not give them."""
    import requests

    manager = library().core.download.download_manager
    try:
        yield
    except manager.NonMatchingChecksumError as error:
        raise UserError(f"{name}: {' '.join(str(error).split())}") from error
    except requests.RequestException as error:
        host = urllib.parse.urlsplit(error.request.url).netloc if error.request else "its host"
        manual = downloads / "manual"
        missing = _missing(builder, downloads)
        raise UserError(
            f"{name} cannot be fetched: {host} cannot be reached; fetch what is listed above "
            f"elsewhere, and place it in {str(manual)!r}",
            (f"{url} → {manual / file}" for url, file in missing.items()),
        ) from error


def _missing(builder: Any, downloads: Path) -> dict[str, str]:
    """Returns URL and file name of each download of a set that neither TFDS nor a person fetched.

    A set may need but some of them: TFDS records them for all its configurations together.
    """
    fetched = {path.name for path in downloads.rglob("*") if path.is_file()}
    resource = library().core.download.resource
    return {
        url: info.filename
        for url, info in (builder.url_infos or {}).items()
        if info.filename
        and not (downloads / "manual" / info.filename).exists()
        and resource.get_dl_fname(url, info.checksum) not in fetched
    }
