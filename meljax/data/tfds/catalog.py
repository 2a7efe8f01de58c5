"""Finds, downloads and opens TFDS sets by name. No other module imports tensorflow-datasets.

The set `tfds:NAME[/CONFIG][:VERSION]` is in the folder `NAME[/CONFIG]/VERSION` of `data.tfds_dir`.
If it is not there and TFDS knows it, TFDS downloads it.
"""

import contextlib
import difflib
import functools
import importlib
import importlib.util
import io
import os
import re
import textwrap
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from meljax.util.errors import UserError, first_line
from meljax.util.progress import interactive, say
from meljax.util.typed_json import parse_json

PREFIX = "tfds:"
VERSION = r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*)){2}"
CONNECT_SECONDS = 10
EXTRA = "'.[tfds-tf]'"
PACKAGES_OF_EXTRA = ("tensorflow", "pydub")
"""TFDS needs these for Audio features, for tfrecord files, and to make most sets."""


class Name(NamedTuple):
    """The name of a set; a configuration or version that is not given is ''."""

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
    """Returns the parts of `path`; raises `UserError` unless it is a name of a set."""
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


@functools.cache
def library() -> Any:
    """Returns the module `tensorflow_datasets`; importing it takes half a second.

    A set names the classes of its features, in `features.json` or `dataset_info.json`. TFDS would
    import, and so execute, any module in such a name. Here it accepts only its own classes.
    """
    module = importlib.import_module("tensorflow_datasets")
    connector = module.features.FeatureConnector
    find = connector.cls_from_name
    own = [each for each in vars(module.features).values() if isinstance(each, type)]
    known = {f"{each.__module__}.{each.__name__}" for each in own if issubclass(each, connector)}

    def find_known(name: str) -> type:
        if name not in known:
            raise ValueError(f"feature class {name!r} is not part of TFDS; nothing was imported")
        return find(name)

    connector.cls_from_name = staticmethod(find_known)
    return module


def hide_accelerators() -> None:
    """Keeps TensorFlow, if installed, from allocating the accelerator's memory."""
    if importlib.util.find_spec("tensorflow"):
        with contextlib.suppress(RuntimeError):  # TensorFlow has started already
            importlib.import_module("tensorflow").config.set_visible_devices([], "GPU")


def root_of(tfds_dir: str) -> Path:
    """Returns the folder of sets: `tfds_dir`, or the default of TFDS if that is empty."""
    return Path(os.path.expanduser(tfds_dir or library().core.constants.DATA_DIR))


def folder_of(root: Path, name: Name) -> Path:
    """Returns the folder of a set."""
    return root / name.name / name.config / name.version


def known() -> set[str]:
    """Returns the names of the sets that TFDS can download."""
    return set(library().list_builders(with_community_datasets=False))


def find_local(path: str, tfds_dir: str) -> Name | None:
    """Returns the full name of a set in `tfds_dir`; `None` if it must be downloaded.

    Without a version in `path`, it is the newest one.

    Raises:
      UserError: there is no such set, or it has several configurations.
    """
    wanted, root = parse(path), root_of(tfds_dir)
    try:
        os.listdir(root)
    except FileNotFoundError:
        pass  # TFDS may create it
    except OSError as error:
        raise UserError(f"data.tfds_dir: {str(root)!r}: {error.strerror}") from None
    here = prepared(root)
    same = [name for name in here if name.name == wanted.name]
    if fitting := _fitting(wanted, same, root):
        return fitting[-1]
    downloadable = known()
    if wanted.name in downloadable:
        return None
    if same:
        held = ", ".join(map(str, same))
        raise UserError(f"data.path: {str(root)!r} has {held} but no {wanted}; name one of them")
    names = sorted({name.name for name in here} | downloadable)
    near = difflib.get_close_matches(wanted.name.lower(), names, n=1, cutoff=0.75)
    hint = f"did you mean {PREFIX}{near[0]}?" if near else "check data.tfds_dir"
    raise UserError(
        f"data.path: {wanted.name!r} is neither a set in {str(root)!r} (data.tfds_dir) nor one "
        f"that TFDS can download; {hint}"
    )


def find_or_download(path: str, tfds_dir: str) -> Name:
    """Returns the full name of a set after downloading it if needed; see `find_local`."""
    return find_local(path, tfds_dir) or _download(parse(path), root_of(tfds_dir))


def open_set(path: str, tfds_dir: str) -> Any:
    """Downloads a set if needed; returns its `DatasetBuilder`, or raises `UserError`."""
    name = find_or_download(path, tfds_dir)
    return open_folder(name, folder_of(root_of(tfds_dir), name))


def open_folder(name: Name, folder: Path) -> Any:
    """Returns the set `name` in `folder`; see `open_set`."""
    remedy = f"; if it is damaged, remove {folder} and build or download it again"
    with tfds_errors(name, remedy), _silence():
        builder = library().builder_from_directory(folder)
        # Both may be read lazily; damage must raise its error here.
        builder.info.features  # noqa: B018
        if builder.info.metadata is not None:
            builder.info.metadata.items()
    return builder


@contextlib.contextmanager
def tfds_errors(name: Name | str, remedy: str = "") -> Iterator[None]:
    """Turns any error that TFDS raises into a `UserError` that ends with `remedy`."""
    try:
        yield
    except ImportError as error:
        package = error.name.split(".")[0] if error.name else first_line(error)
        install = EXTRA if package in PACKAGES_OF_EXTRA else package
        raise UserError(f"{name} needs {package}: pip install {install}") from error
    except UserError:
        raise
    except Exception as error:  # TFDS and damaged files raise nearly any type
        raise UserError(f"{name} cannot be used ({first_line(error)}){remedy}") from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Discards the output of TFDS, such as a banner about missing TensorFlow."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def prepared(root: Path) -> list[Name]:
    """Returns the sets in `root`, sorted by name, configuration and version."""
    found = []
    for depth in ("*/*", "*/*/*"):
        for info in root.glob(f"{depth}/dataset_info.json"):
            name, *config, version = info.parent.relative_to(root).parts
            if re.fullmatch(VERSION, version):
                found.append(Name(name, *(config or [""]), version))
    return sorted(found, key=lambda n: (n.name, n.config, tuple(map(int, n.version.split(".")))))


def _fitting(wanted: Name, same: Sequence[Name], root: Path) -> list[Name]:
    """Returns the sets in `same` that fit `wanted`, whose name they have; the newest is last."""
    configs = {name.config for name in same}
    config = wanted.config or _default_config(root / wanted.name)
    if same and not wanted.config and config not in configs:
        if len(configs) > 1:
            raise UserError(
                f"data.path: {str(root)!r} has several configurations of {wanted.name}; name one "
                f"of {', '.join(PREFIX + f'{wanted.name}/{each}' for each in sorted(configs))}"
            )
        (config,) = configs
    return [n for n in same if n.config == config and wanted.version in ("", n.version)]


def _default_config(folder: Path) -> str:
    """Returns the configuration that TFDS recorded as the default; '' if there is none."""
    try:
        info = parse_json((folder / ".config" / "metadata.json").read_text(encoding="utf-8"))
        return str(info["default_config_name"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _download(wanted: Name, root: Path) -> Name:
    """Downloads and prepares a set as array_record files; returns its full name."""
    tfds, downloads = library(), root / "downloads"
    chosen = {key: value for key, value in wanted._asdict().items() if value and key != "name"}
    with tfds_errors(wanted), _silence():
        maker = tfds.builder_cls(wanted.name)
        configs = list(maker.builder_configs)
        if wanted.config and wanted.config not in configs:
            near = difflib.get_close_matches(wanted.config, configs, n=1) or configs[:1]
            hint = f"; it has {len(configs)}, e.g. {near[0]!r}" if near else ""
            raise UserError(f"{wanted}: {wanted.name} has no configuration {wanted.config!r}{hint}")
        builder = maker(**chosen, data_dir=root, file_format="array_record")
    name = Name(builder.name, builder.builder_config_name or "", str(builder.version))
    say(f"downloading {name} to {folder_of(root, name)}")
    _check_reachable(name, builder, downloads)
    if not interactive():
        tfds.disable_progress_bar()
    with (
        tfds_errors(name),
        _download_errors(name, builder, downloads),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        hide_accelerators()
        settings = tfds.download.DownloadConfig(try_download_gcs=False)
        try:
            builder.download_and_prepare(download_config=settings)
        except Exception:
            if name not in prepared(root):  # another process may have just prepared it
                raise
    return name


def _check_reachable(name: Name, builder: Any, downloads: Path) -> None:
    """Raises `UserError` if the files cannot be downloaded; TFDS itself would retry for minutes."""
    import requests  # a dependency of TFDS, slow to import

    manual = downloads / "manual"
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not (manual.is_dir() and any(manual.iterdir())):
        raise UserError(
            f"{name} must be downloaded by hand: follow the instructions above and put the files "
            f"into {str(manual)!r}",
            textwrap.dedent(builder.MANUAL_DOWNLOAD_INSTRUCTIONS).strip().splitlines(),
        )
    missing = _missing(builder, downloads)
    if missing:
        with _download_errors(name, builder, downloads):
            requests.head(next(iter(missing)), timeout=CONNECT_SECONDS).close()


@contextlib.contextmanager
def _download_errors(name: Name, builder: Any, downloads: Path) -> Iterator[None]:
    """Turns a network error into a `UserError` that lists the files to download by hand."""
    import requests

    manager = library().core.download.download_manager
    try:
        yield
    except manager.NonMatchingChecksumError as error:
        raise UserError(f"{name}: {' '.join(str(error).split())}") from error
    except requests.RequestException as error:
        host = urllib.parse.urlsplit(error.request.url).netloc if error.request else "its host"
        manual = downloads / "manual"
        raise UserError(
            f"{name} cannot be downloaded because {host} cannot be reached; download the files "
            f"listed above elsewhere and put them into {str(manual)!r}",
            (f"{url} → {manual / file}" for url, file in _missing(builder, downloads).items()),
        ) from error


def _missing(builder: Any, downloads: Path) -> dict[str, str]:
    """Returns {URL: file name} of the missing downloads, for all configurations of the set."""
    present = {path.name for path in downloads.rglob("*") if path.is_file()}
    resource = library().core.download.resource
    return {
        url: info.filename
        for url, info in (builder.url_infos or {}).items()
        if info.filename
        and not (downloads / "manual" / info.filename).exists()
        and resource.get_dl_fname(url, info.checksum) not in present
    }
