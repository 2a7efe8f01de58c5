"""Checks that a change of the code changed no numbers.

    python scripts/golden.py COMMIT [--python PATH] [--images FOLDER] [--keep]

The old tree is COMMIT. The new tree is the working tree: all tracked files in their current state,
and the untracked files that git does not ignore. Each tree trains three small runs:
configs/quick.py on the embedded voices, configs/cnn.py and configs/resnet.py on images. Each run is
then used by predict, evaluate and export. The outputs of both trees are compared bit for bit, and
so are the outputs of the exported models for the same inputs. Names in evaluate's JSON and columns
of predictions.csv may change: one that only one tree writes is a note, not a difference. Top-level
strings of the JSON are not compared.

Both trees use the same package versions: the script makes two virtual environments, and installs
the new tree with the versions of the old one. With --python PATH it makes none; PATH is then an
interpreter with all dependencies, including onnx and onnxruntime. Both trees run on this machine,
one after the other, with the same environment variables, because only then numbers are comparable.
This takes six to eight minutes on two busy CPU cores; the environments take two minutes more.

The exit code is 0 if everything is equal, 1 if not or if a command failed, and 2 for wrong
arguments. The script itself needs numpy and pillow.
"""

import argparse
import csv
import dataclasses
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
STARTED = time.perf_counter()
CLASSES, FILES = 4, 12
"""Number of classes of images, and of files per class."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
COPIED = ("metrics.jsonl", "predictions.csv")
COMPARED = (*COPIED, "top.jsonl", "windows.jsonl", "evaluate.json", "stablehlo.npy", "onnx.npy")
TIMES = {"seconds", "images_per_second"}
"""Keys of `metrics.jsonl` that differ between runs."""
NEEDED = ("items", "confusion", "accuracy", "macro_f1", "loss")
"""Keys that evaluate's JSON must hold."""
CALL = """
import sys
import jax.export, numpy, onnxruntime
inputs = numpy.load(sys.argv[1])
with open("model.stablehlo", "rb") as file:
    model = jax.export.deserialize(bytearray(file.read()))
numpy.save("stablehlo.npy", numpy.asarray(model.call(inputs)))
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
numpy.save("onnx.npy", session.run(None, {session.get_inputs()[0].name: inputs})[0])
"""
"""A program that calls the exported models in the current folder on the inputs in a file."""


class FailedError(Exception):
    """The comparison cannot continue."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that both trees train, the files for predict and the data for evaluate."""

    name: str
    settings: Sequence[str]
    files: Sequence[Path]
    data: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Side:
    """The old or new tree, its interpreter and the folder of its output."""

    name: str
    tree: Path
    python: Path
    folder: Path
    installed: bool

    def execute(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        """Runs the interpreter with this side's tree and caches; returns its output."""
        env = {"HOME": str(self.folder), "XDG_CACHE_HOME": str(self.folder / "cache")}
        env |= {} if self.installed else {"PYTHONPATH": str(self.tree)}
        return execute([self.python, *arguments], cwd or self.folder, env)

    def command(self, name: str, run: str, *arguments: str | Path) -> None:
        """Runs a command of meljax; older trees have a module for each."""
        say(f"{self.name} {run}: {name}")
        one_entry = (self.tree / "meljax" / "__main__.py").is_file()
        module = ["meljax", name] if one_entry else [f"meljax.{name}"]
        self.execute("-m", *module, run, *arguments)

    def work(self, run: Run) -> Path:
        """Trains and uses a run; returns the folder of the compared files."""
        say(f"{self.name} {run.name}: train")
        arguments = ["--config", self.tree / "configs" / f"{run.name}.py", "--workdir", run.name]
        settings = [f"--config.{setting}" for setting in run.settings]
        self.execute("-m", "meljax.main", *arguments, *settings)
        out, inputs = self.folder / f"{run.name}-out", self.folder.parent / f"{run.name}.npy"
        out.mkdir()
        for name in COPIED:
            shutil.copy(self.folder / run.name / name, out)
        predict = ("predict", run.name, *run.files, "--top", "2", "--out")
        self.command(*predict, out / "top.jsonl")
        self.command(*predict, out / "windows.jsonl", "--windows")
        # Older trees do not take the data as a positional argument.
        option = [] if (self.tree / "meljax" / "commands" / "train.py").exists() else ["--data"]
        data = [*option, *run.data] if run.data else []
        self.command("evaluate", run.name, *data, "--json", out / "evaluate.json")
        for form in ("stablehlo", "onnx"):
            self.command("export", run.name, "--format", form, "--out", out / f"model.{form}")
        if not inputs.exists():  # both sides get the same inputs
            make_inputs(out / "model.onnx.json", inputs)
        say(f"{self.name} {run.name}: call the exported models")
        self.execute("-c", CALL, inputs, cwd=out)
        return out


def say(text: str) -> None:
    """Prints a line with the time since the start."""
    print(f"{time.perf_counter() - STARTED:7.1f} s  {text}", flush=True)


def execute(command: Sequence[str | Path], cwd: Path, env: dict[str, str] | None = None) -> str:
    """Returns the output of a command; if it fails, the error shows the end of its stderr."""
    unwanted = ("PYTHONPATH", "JAX_COMPILATION_CACHE_DIR")
    env = {k: v for k, v in os.environ.items() if k not in unwanted} | (env or {})
    done = subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-20:])
        line = " ".join(map(str, command))
        raise FailedError(f"{line[:300]}\nended with exit code {done.returncode}:\n{tail}")
    return done.stdout


def copy_trees(commit: str, old: Path, new: Path) -> None:
    """Copies the files of a commit to `old` and those of the working tree to `new`."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(old, filter="data")
    for name in execute(["git", "ls-files", "-zco", "--exclude-standard"], ROOT).split("\0"):
        if name and (ROOT / name).is_file():  # a tracked file may have been deleted
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, new / name)


def install(tree: Path, env: Path, constraints: Path) -> dict[str, str]:
    """Makes a virtual environment within the constraints; returns the package versions."""
    say(f"install {tree.name}")
    execute([sys.executable, "-m", "venv", env], tree)
    pip = [env / "bin" / "python", "-m", "pip"]
    execute([*pip, "install", "-c", constraints, f"{tree}[onnx]"], tree)
    frozen = execute([*pip, "freeze", "--exclude", "meljax"], tree)
    return dict(line.split("==") for line in frozen.splitlines() if "==" in line)


def install_both(work: Path) -> None:
    """Makes a virtual environment of each tree, with the same package versions."""
    constraints = work / "constraints.txt"
    constraints.touch()
    old = install(work / "old-tree", work / "old-env", constraints)
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in old.items()))
    new = install(work / "new-tree", work / "new-env", constraints)
    unlike = [f"{k} ({old[k]} and {new[k]})" for k in old if new.get(k, old[k]) != old[k]]
    if unlike:
        raise FailedError(f"the trees have different versions of {', '.join(unlike)}")
    alone = ", ".join(sorted(old.keys() ^ new.keys())) or "none"
    say(f"{len(old.keys() & new.keys())} packages are the same; only one tree has: {alone}")


def make_side(work: Path, name: str, python: Path | None) -> Side:
    """Returns a side after checking that it imports its own tree."""
    (work / name).mkdir()
    tree, env = work / f"{name}-tree", work / f"{name}-env"
    side = Side(name, tree, python or env / "bin" / "python", work / name, installed=not python)
    found = side.execute("-c", "import meljax; print(meljax.__file__)").strip()
    if not Path(found).is_relative_to(tree if python else env):
        raise FailedError(f"the {name} side imports {found}, not its own tree")
    return side


def make_images(folder: Path) -> None:
    """Draws color images of slightly varying width."""
    rng = np.random.default_rng(0)
    for number, index in itertools.product(range(CLASSES), range(FILES)):
        rows, columns = np.mgrid[:64, : 60 + rng.integers(9)]
        waves = [np.sin(rng.uniform(0, 6) + rows * f / 9 + columns / 5) for f in (number, 1, 2)]
        pixels = 128 + 50 * np.stack(waves, -1) + 20 * rng.normal(size=(*rows.shape, 3))
        (folder / f"class{number}").mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / f"class{number}" / f"{index:02}.png")


def first_images(folder: Path) -> list[Path]:
    """Returns the first images of each of the first sub-folders with images."""
    images = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES)
    classes = itertools.groupby(images, lambda path: path.parent)
    chosen = itertools.islice(classes, CLASSES)
    return [image for _, its in chosen for image in itertools.islice(its, FILES)]


def make_recordings(folder: Path) -> list[Path]:
    """Writes recordings that are shorter and longer than a window; returns their paths."""
    rng, paths = np.random.default_rng(1), []
    folder.mkdir()
    for seconds, rate, channels in ((0.6, 16_000, 1), (2, 16_000, 1), (9, 22_050, 2)):
        times = np.arange(int(seconds * rate))[:, None] / rate
        voice = sum(np.sin(880 * k * times + np.sin(9 * times)) / k for k in range(1, 9))
        samples = 6000 * voice + 300 * rng.normal(size=(len(times), channels))
        paths.append(folder / f"{seconds}s.wav")
        with wave.open(str(paths[-1]), "wb") as file:
            file.setparams((channels, 2, rate, 0, "NONE", ""))
            file.writeframes(samples.clip(-32768, 32767).astype("<i2").tobytes())
    return paths


def make_inputs(description: Path, file: Path) -> None:
    """Writes pseudo-random inputs of the described shape and dtype to `file`."""
    given, rng = json.loads(description.read_text())["input"], np.random.default_rng(2)
    x = rng.uniform(-1, 1, (5, *given["shape"][1:])) ** 3
    x = 255 * abs(x) if given["dtype"] == "uint8" else x
    np.save(file, x.astype(given["dtype"]))


def make_runs(images: Path, work: Path) -> list[Run]:
    """Returns the runs that both sides train, and makes the files for predict."""
    shown = first_images(images)[::4]
    with Image.open(shown[0]) as image:  # an image of several windows
        wide = np.concatenate([np.asarray(image.convert("RGB"))] * 3, axis=1)
    Image.fromarray(wide).save(work / "wide.png")
    shown.append(work / "wide.png")
    shared = [f"data.path={images}", "train.epochs=1", "train.batch_size=8"]
    small = ["data.image_size=32", "model.init=scratch"]
    return [
        Run("quick", ["train.epochs=3"], make_recordings(work / "recordings")),
        Run("cnn", shared, shown, [str(images)]),
        Run("resnet", [*shared, *small], shown, [str(images)]),
    ]


def read(file: Path) -> Any:
    """Returns the content of a file as lists and dictionaries of numbers and strings."""
    if file.suffix == ".npy":
        array = np.load(file)
        return [str(array.dtype), array.tolist()]
    text = file.read_bytes().decode("utf-8", "surrogateescape")
    if file.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text)))
    if file.suffix == ".json":
        scores = json.loads(text)
        if missing := [key for key in NEEDED if key not in scores]:
            raise FailedError(f"{file} has no {', '.join(missing)}")
        return {key: value for key, value in scores.items() if not isinstance(value, str)}
    rows = [json.loads(line) for line in text.splitlines()]
    return [{key: row[key] for key in row if key not in TIMES} for row in rows]


def differences(old: Any, new: Any, where: str, alone: set[str]) -> Iterator[str]:
    """Yields the differences below the path `where`.

    The paths of keys that only one side has are added to `alone`.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        alone |= {re.sub(r"\[\d+\]", "[]", f"{where}.{key}") for key in old.keys() ^ new.keys()}
        for key in old.keys() & new.keys():
            yield from differences(old[key], new[key], f"{where}.{key}", alone)
    elif isinstance(old, list) and isinstance(new, list):
        for number, pair in enumerate(itertools.zip_longest(old, new)):
            yield from differences(*pair, f"{where}[{number}]", alone)
    elif repr(old) != repr(new):
        yield f"{where or 'all'}: {old!r:.100} and {new!r:.100}"


def compare(name: str, run: str, old_folder: Path, new_folder: Path) -> bool:
    """Compares a file of both sides; prints and returns whether it is equal."""
    old, new, alone = read(old_folder / name), read(new_folder / name), set()
    found = list(differences(old, new, "", alone))
    for place in sorted(alone):
        if name in ("evaluate.json", "predictions.csv"):
            say(f"note: {run} {name}: only one side has {place}")
        else:
            found.append(f"{place}: only one side has it")
    if found:
        shown = "; ".join(sorted(found)[:3])
        say(f"{run} {name}: DIFFERS in {len(found)} places, e.g. {shown}")
    else:
        say(f"{run} {name}: equal")
    return not found


def golden(commit: str, python: Path | None, images: Sequence[Path], work: Path) -> bool:
    """Runs both sides and compares them; returns whether everything is equal."""
    copy_trees(commit, work / "old-tree", work / "new-tree")
    for image in images:
        (work / "images" / image.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, work / "images" / image.parent.name)
    if not images:
        make_images(work / "images")
    if not python:
        install_both(work)
    sides = [make_side(work, name, python) for name in ("old", "new")]
    equal = []
    for run in make_runs(work / "images", work):
        folders = [side.work(run) for side in sides]
        equal += [compare(name, run.name, *folders) for name in COMPARED]
    differ = equal.count(False)
    say(f"{len(equal)} comparisons: {f'{differ} DIFFER' if differ else 'all are equal'}")
    return not differ


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commit", metavar="COMMIT", help="git commit of the old tree")
    parser.add_argument("--python", metavar="PATH", help="interpreter for both trees")
    parser.add_argument(
        "--images",
        metavar="FOLDER",
        type=Path,
        help=f"use the first {FILES} images of its first {CLASSES} sub-folders (default: drawn)",
    )
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder")
    arguments = parser.parse_args(argv)
    parse = ["git", "rev-parse", "--verify", "--quiet", f"{arguments.commit}^{{commit}}"]
    commit = subprocess.run(parse, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout.strip()
    if not commit:
        parser.error(f"{arguments.commit!r} is not a commit")
    # Links are not resolved: they make Python use the packages of their environment.
    python = Path(os.path.abspath(arguments.python)) if arguments.python else None
    if python and not (python.is_file() and os.access(python, os.X_OK)):
        parser.error(f"--python {python} is not an executable file")
    images = first_images(arguments.images) if arguments.images else []
    if arguments.images and not images:
        parser.error(f"--images {arguments.images} has no sub-folders with images")
    for number in (signal.SIGINT, signal.SIGTERM):  # the exit runs the clean-up
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    work = Path(tempfile.mkdtemp(prefix="golden-"))
    try:
        return 0 if golden(commit, python, images, work) else 1
    except FailedError as error:
        say(f"FAILED: {error}")
        return 1
    finally:
        if arguments.keep:
            say(f"kept: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
