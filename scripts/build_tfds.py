"""Makes a TFDS set of a folder or CSV of voices, without TensorFlow.

    python scripts/build_tfds.py SOURCE --name NAME [--out DIR]

SOURCE is whatever meljax trains on: a folder with one sub-folder per class, one with train/, val/
and test/, or a CSV. The set lies in DIR/NAME/VERSION, in array_record format. An example holds the
picture or recording as its file does, the class (`label`), what must not be on two sides (`group`),
where it came from (`path`, which a split of ours depends on) and the file's `sha256`. Any program
reads it with tensorflow-datasets; meljax trains on it as on SOURCE, to the same weights:

    python -m meljax.main --config configs/cnn.py --config.data.path=tfds:NAME

A set is made anew only where something changed, and stands there whole or not at all. meljax must
be installed.
"""

import argparse
import contextlib
import hashlib
import io
import itertools
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import meljax
from meljax import cli, paths, progress
from meljax.data import files, load, reader, records, split, tfds
from meljax.data.files import Bad, Item, Listing
from meljax.data.records import Signature
from meljax.errors import BadFileError, UserError

SPLITS = {"": "train", "train": "train", "val": "validation", "test": "test"}
"""What TFDS calls each side; files whose side is to be decided are all 'train'."""
CONTENT = {"image": "image", "sound": "audio"}
"""The feature of each kind."""
FLAGS = {"data.path": "SOURCE", "data.label": "--label", "data.group": "--group"}
ANY_RATE = 16_000  # Hz: whether a recording can be read does not depend on it


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SOURCE", help="a folder or a CSV")
    parser.add_argument("--name", required=True, help="of the set, such as voices_2")
    parser.add_argument(
        "--out", metavar="DIR", default="", help="default: $TFDS_DATA_DIR or ~/tensorflow_datasets"
    )
    parser.add_argument("--version", default="1.0.0", help="default: 1.0.0")
    parser.add_argument("--description", metavar="TEXT", default="", help="what the set is")
    parser.add_argument("--label", metavar="COLUMN", default="label", help="of a CSV: the class")
    parser.add_argument(
        "--group", metavar="COLUMN", default="group", help="of a CSV: what stays on one side"
    )
    parser.add_argument(
        "--on-bad-file", choices=("stop", "skip"), default="stop", help="default: stop"
    )
    arguments = parser.parse_args(argv)
    return cli.run(lambda: build(arguments))


def build(arguments: argparse.Namespace) -> int:
    """Makes the set that `arguments` ask for, unless it is there; returns the exit code."""
    name = tfds.Name(arguments.name, "", arguments.version)
    root = tfds.root_of(arguments.out)
    _check_arguments(name, arguments.description)
    with cli.renamed(FLAGS):
        listing = files.scan(arguments.source, arguments.label, arguments.group)
    _check_labels(listing)
    _check_place(name, root, Path(arguments.source))
    hashed = dict(zip(listing.items, load.read_all(listing, lambda data: None), strict=True))
    source = _source(arguments, listing, hashed)
    if _is_there(name, root, source):
        progress.say(f"unchanged: {_told(name, root)}")
        return 0
    with cli.renamed(FLAGS):
        good = _readable(arguments, listing)
    classes = sorted({item.label for item in good})
    description = f"{len(good)} {files.NOUNS[listing.kind]}s of {len(classes)} classes."
    facts = {
        "format": records.FORMAT,
        "version": meljax.__version__,
        "classes": classes,
        "fingerprint": records.fingerprint(good.values()),
        "source": source,
    }
    if tfds.folder_of(root, name).exists():
        progress.say(f"replacing {_told(name, root)}")
    with _replacing(root, name) as place:
        _write(place, name, listing, good, arguments.description or description, facts)
    progress.say(f"made {_told(name, root)}; {listing.ignored} other files or folders ignored")
    where = f" --config.data.tfds_dir={shlex.quote(arguments.out)}" if arguments.out else ""
    progress.say(
        "to train on it: python -m meljax.main --config configs/cnn.py "
        f"--config.data.path={name}{where}"
    )
    return 0


# What may be made


def _check_arguments(name: tfds.Name, description: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name.name):
        raise UserError(
            f"--name must be letters (a-z), digits and _, a letter first, not {name.name!r}"
        )
    if not re.fullmatch(tfds.VERSION, name.version):
        raise UserError(f"--version must be three numbers such as 1.0.0, not {name.version!r}")
    if name.name in tfds.known():
        raise UserError(f"--name {name.name}: TFDS itself has a set of that name; choose another")
    if not _is_unicode(description):
        raise UserError(f"--description must be Unicode text, not {description!r}")


def _check_labels(listing: Listing) -> None:
    """TFDS keeps the names of classes in a text file, a line each."""
    for label in sorted({item.label for item in listing.items}):
        if [label] != label.strip().splitlines() or "\0" in label or not _is_unicode(label):
            raise UserError(f"the class {label!r} cannot be written to a TFDS set; rename it")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_place(name: tfds.Name, root: Path, source: Path) -> None:
    """Raises `UserError` where a set would destroy another's, or lie among what it is made of."""
    for other in tfds.prepared(root):
        if other.name == name.name and other.config:
            raise UserError(f"{root} holds {other}, of another program; choose another --name")
    folder = tfds.folder_of(root, name)
    if folder.exists() and not _is_ours(folder):
        raise UserError(
            f"{folder} is there, and not as meljax made it; remove it, or choose another --name or "
            "--version"
        )
    if source.is_dir() and source.resolve() in (root.resolve(), *root.resolve().parents):
        raise UserError(f"--out {root} lies in SOURCE, whose classes are folders; give another one")


def _is_ours(folder: Path) -> bool:
    """Returns whether meljax wrote a set, as far as can be told: it may be damaged."""
    try:
        return records.OURS in json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _is_there(name: tfds.Name, root: Path, source: str) -> bool:
    """Returns whether the set was made of the same, and is whole."""
    if name not in tfds.prepared(root):
        return False
    try:
        facts = records.facts_of(tfds.open_set(str(name), str(root)).info)
        whole = not records.scan(str(name), str(root), "label", "group", training=False).bad
    except UserError:  # damaged, or of another kind
        return False
    return whole and facts.get("source") == source


def _source(arguments: argparse.Namespace, listing: Listing, hashed: Mapping[Item, Any]) -> str:
    """Returns what changes with anything that the set is made of."""
    facts = [
        [item.path, item.label, item.group, item.split, str(result)]
        for item, result in hashed.items()
    ]
    bad = [[bad.path, bad.reason] for bad in listing.bad]
    text = json.dumps([records.FORMAT, facts, bad, arguments.description, arguments.on_bad_file])
    return hashlib.sha256(text.encode()).hexdigest()


def _readable(arguments: argparse.Namespace, listing: Listing) -> dict[Item, Signature]:
    """Returns what is to be written of each file that can be used.

    Raises:
      UserError: some cannot, and are not to be skipped; all are listed.
    """
    decode = reader.make_reader(listing.kind, 0, ANY_RATE)
    results = load.read_all(listing, lambda data: bool(decode(data).size), "checking")
    bad = [*listing.bad, *(result for result in results if isinstance(result, Bad))]
    if arguments.on_bad_file == "stop":
        load.check_bad(arguments.source, bad, "--on-bad-file=skip")
    for each in bad:
        progress.warn(f"{load.shown(each)}; left out")
    good = {
        item: Signature(item.path, item.label, item.group, result[0], SPLITS[item.split])
        for item, result in zip(listing.items, results, strict=True)
        if not isinstance(result, Bad)
    }
    load.check_left(arguments.source, listing.items, list(good), bad)
    files.check_classes(arguments.source, good)
    digests = [signature.sha256 for signature in good.values()]
    for line in split.conflicting_duplicates(list(good), digests):
        progress.warn(line)
    return good


def _told(name: tfds.Name, root: Path) -> str:
    """Returns in words what lies there."""
    folder = tfds.folder_of(root, name)
    size = sum(file.stat().st_size for file in folder.iterdir())
    try:
        info = tfds.open_folder(name, folder).info
    except UserError:
        return f"{folder} (damaged), {size / 1e6:,.1f} MB"
    sides = [side for side in ("train", "validation", "test") if side in info.splits]
    held = ", ".join(f"{info.splits[side].num_examples:,} {side}" for side in sides)
    return f"{folder}: {info.features['label'].num_classes} classes, {held}, {size / 1e6:,.1f} MB"


# Writing


@contextlib.contextmanager
def _replacing(root: Path, name: tfds.Name) -> Iterator[Path]:
    """Gives a folder in which a set is made, and puts the set in its place once it is whole."""
    place = root / f".meljax-{name.name}"
    made, old, target = place / "made", place / "old", tfds.folder_of(root, name)
    lock = place / "lock"
    with paths.locked_file(lock, f"another process is making {name.name} in {root}"):
        _restore(old, target)  # after a process that was killed
        shutil.rmtree(made, ignore_errors=True)
        try:
            yield made
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                target.rename(old)
            tfds.folder_of(made, name).rename(target)
        finally:
            _restore(old, target)
            shutil.rmtree(made, ignore_errors=True)
            lock.unlink()
            with contextlib.suppress(OSError):  # another process has just begun there
                place.rmdir()


def _restore(old: Path, target: Path) -> None:
    """Puts back what was to be replaced, if nothing stands in its place; else removes it."""
    if old.exists() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _write(
    place: Path,
    name: tfds.Name,
    listing: Listing,
    examples: Mapping[Item, Signature],
    description: str,
    facts: dict[str, Any],
) -> None:
    """Lets TFDS write a set in the folder `place`."""
    library = tfds.library()
    content = CONTENT[listing.kind]
    written = itertools.count(1)

    class VoiceSet(library.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = library.core.Version(name.version)

        def _info(self) -> Any:
            return library.core.DatasetInfo(
                builder=self,
                description=description,
                features=_features(listing.kind, facts["classes"]),
                supervised_keys=(content, "label"),
                metadata=library.core.MetadataDict({records.OURS: facts}),
            )

        def _split_generators(self, _: Any) -> dict[str, Iterator[Any]]:
            names = sorted({signature.split for signature in examples.values()})
            return {name: self._generate_examples(name) for name in names}

        def _generate_examples(self, name: str) -> Iterator[tuple[bytes, dict[str, Any]]]:
            for item, signature in examples.items():
                if signature.split == name:
                    count(next(written), len(examples))
                    yield os.fsencode(item.path), _example(listing, item, signature)

    VoiceSet.name = name.name
    library.disable_progress_bar()
    settings = library.download.DownloadConfig(try_download_gcs=False)
    with progress.counter("writing") as count, contextlib.redirect_stdout(io.StringIO()):
        try:
            builder = VoiceSet(data_dir=place, file_format="array_record")
            builder.download_and_prepare(download_config=settings)
        except RuntimeError as error:  # array_record's word for a full disk
            raise UserError(f"{place} cannot be written: {tfds.first_line(error)}") from error


def _features(kind: str, classes: Sequence[str]) -> Any:
    """Returns what an example of the set holds."""
    features = tfds.library().features
    content = {
        "image": features.Image(doc="a picture's file, as it is"),
        "sound": features.Text(doc="a recording's file, as it is"),
    }
    return features.FeaturesDict(
        {
            CONTENT[kind]: content[kind],
            "label": features.ClassLabel(names=classes),
            "group": features.Text(doc="what must not be on two sides of a split; '' stands alone"),
            "path": features.Text(doc="where the file lay"),
            "sha256": features.Text(doc="of the file, hexadecimal"),
        }
    )


def _example(listing: Listing, item: Item, signature: Signature) -> dict[str, Any]:
    """Returns a file as an example of the set."""
    try:
        data = listing.read(item)
    except BadFileError as error:
        raise UserError(f"{item.path}: {error}; start again") from error
    if hashlib.sha256(data).hexdigest() != signature.sha256:
        raise UserError(f"{item.path} changed while the set was made; start again")
    return {
        CONTENT[listing.kind]: io.BytesIO(data) if listing.kind == "image" else data,
        "label": item.label,
        "group": os.fsencode(item.group),
        "path": os.fsencode(item.path),
        "sha256": signature.sha256,
    }


if __name__ == "__main__":
    cli.leave(main())
