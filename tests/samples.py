"""Made-up runs for the tests of pages, and a parser of pages."""

import base64
import dataclasses
import html
import re
from html.parser import HTMLParser

import numpy as np

from meljax import config
from meljax.evaluation.explanation import Explanation
from meljax.evaluation.forward import Model
from meljax.evaluation.mistakes import Mistake
from meljax.evaluation.scores import Scored
from meljax.features.frontend import Frontend
from meljax.models.pretrained.initial_weights import WeightsOrigin
from meljax.models.registry import build
from meljax.reports.html_page import Files
from meljax.runs.info import DataInfo, RunInfo, SessionInfo
from meljax.runs.load_model import TrainedModel
from meljax.runs.results import MaskExample, RunResults
from meljax.util.devices import make_mesh

HOSTILE = '<script>alert("&lt;")</script>"><b title="a">{{ 7 * 7 }}{% raw %}'
"""Breaks a page that does not escape it, or that takes it for a part of a template."""

ODD = ["<b>&\"'", "姓名", "🦉", "caf\udce9", "$x_$", "two\nlines", "W" * 300, ""]


def scored(split, epoch, chosen, classes, items, wrong, seed=0, first=0):
    """Scores where `wrong` items, from item `first` on, are predicted as the next class."""
    labels = np.arange(items) % classes
    probabilities = np.random.default_rng(seed).uniform(0, 0.1, (items, classes))
    predicted = (
        labels + (np.arange(items) - first < wrong) * (np.arange(items) >= first)
    ) % classes
    probabilities[np.arange(items), predicted] += 1
    probabilities /= probabilities.sum(1, keepdims=True)
    return Scored(split, epoch, chosen, labels, np.log(probabilities), np.arange(items))


def four_scores():
    """Scores of the last epoch, 9, and the best one, 6, on validation and test files."""
    return [
        scored("val", 9, False, 4, 20, 5),
        scored("val", 6, True, 4, 20, 2),
        scored("test", 9, False, 4, 40, 10),
        scored("test", 6, True, 4, 40, 4),
    ]


def confused(confusion, split="val", epoch=4, chosen=False, temperature=1.0):
    """Scores with the confusion matrix `confusion`."""
    cells = np.indices(np.shape(confusion)).reshape(2, -1)
    labels, predicted = (np.repeat(each, np.ravel(confusion)) for each in cells)
    logits = 2 * np.eye(len(confusion))[predicted]
    return Scored(split, epoch, chosen, labels, logits, np.arange(len(labels)), temperature)


def trained_model(classes, frontend=None, temperature=1.0):
    """A trained model without weights."""
    model = Model(
        network=build(config.ModelConfig(name="cnn"), len(classes)),
        frontend=frontend or Frontend("audio", 1600, 0, 1, 0, config.MelConfig()),
        classes=tuple(classes),
        mesh=make_mesh(),
        variables={},
    )
    return TrainedModel(config.Config(), model, step=5, epoch=1, temperature=temperature)


def history(epochs):
    """A history with linear curves."""
    share = np.arange(1, epochs + 1) / epochs
    columns = {
        "epoch": np.arange(1, epochs + 1),
        "train_loss": 2 - 1.9 * share,
        "val_loss": 2 - 1.5 * share,
        "train_accuracy": share,
        "val_accuracy": 0.8 * share,
        "train_f1": 0.9 * share,
        "val_f1": 0.7 * share,
        "seconds": 0 * share + 2,
        "images_per_second": 0 * share + 75,
    }
    return [{name: float(column[i]) for name, column in columns.items()} for i in range(epochs)]


IMAGENET = WeightsOrigin("imagenet", "resnet18-f37072fd.pth", "f37072fd" * 8)


def make_info(classes, settings=None, weights=IMAGENET, parameters=1_234_567, **data):
    defaults = {
        "kind": "audio",
        "classes": tuple(classes),
        "unscored": (),
        "files": {"train": 90, "val": 10, "test": 0},
        "class_counts": dict.fromkeys(classes, (30, 3, 0)),
        "split_rule": "0.1 of each class for validation, seed 0",
        "window": "1.50 s, the median length of the training recordings",
        "lengths": (0.5, 1.5, 2.25),
        "notes": (),
        "left_out": {".txt": 3},
        "skipped": (),
        "warnings": (),
        "fingerprint": "abc",
    }
    return RunInfo(
        config=config.flat(config.Config()) | (settings or {}),
        weights=weights,
        parameters=parameters,
        data=DataInfo(**defaults | data),
        sessions=(SessionInfo("cpu", "cpu", 1, {"python": "3.11"}, {"meljax": "0a1b2c"}),),
    )


AUDIO = Frontend("audio", 16_000, 0, 1, 0, config.MelConfig())
"""A front end with windows of a second."""


class _Urls(dict):
    def __missing__(self, name):
        return f"figures/{name}"


APART = Files(_Urls(), apart=True)
"""The places of a page's files, if they are not in the page."""


def mistake(path, label, target, image, samples=None):
    seen = Explanation(path, target, 0.9, 0, image, image[:, :, 0], (2, 3), samples)
    return Mistake(label, seen)


def make_results(
    names=("ann", "bob", "cy", "di"),
    epochs=4,
    mistakes=2,
    scores=None,
    audio=None,
    probes=None,
    **info,
):
    image = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8, 1)
    count = len(names)
    best = max(1, epochs - 1)
    wrong = [mistake(f"{n}.wav", names[0], names[1], image, audio) for n in range(mistakes)]
    return RunResults(
        name="run",
        info=make_info(names, **info),
        frontend=AUDIO,
        classes=tuple(names),
        history=history(epochs),
        scores=scores
        or [
            scored("val", epochs, False, count, 20, mistakes),
            scored("val", best, True, count, 20, min(mistakes, 1)),
        ],
        mistakes=wrong,
        last_mistakes=[],
        mask_examples=[MaskExample("m.wav", names[0], image, image / 2)],
        probes=probes or {},
    )


def make_named(word):
    """Results in which everything that users or devices name is called `word`."""
    names = [f"{word}{i}" for i in range(4)]
    data = {"warnings": (word,), "skipped": (f"{word}: bad",), "fingerprint": word}
    settings = {"data.path": word, "data.label": word, "model.init": word}
    weights = WeightsOrigin("file", word, "0" * 64)
    results = make_results(names, settings=settings, weights=weights, **data)
    session = SessionInfo(word, word, 2, {word: word}, {word: word})
    image = results.mistakes[0].seen.image
    return dataclasses.replace(
        results,
        name=word,
        info=dataclasses.replace(results.info, sessions=(session,)),
        mistakes=[mistake(word, word, word, image)],
        mask_examples=[MaskExample(word, word, image, image)],
    )


def assert_same_page(plain, hostile):
    """Asserts that pages with the names 'plainword' and `HOSTILE` differ only in these words."""
    plain, hostile = Page(plain), Page(hostile)
    assert not hostile.open
    assert hostile.tags == plain.tags
    for shown in ("alts", "titles"):
        words = [each.replace("plainword", HOSTILE) for each in getattr(plain, shown)]
        assert getattr(hostile, shown) == words
    assert hostile.shown == plain.shown.replace("plainword", HOSTILE)
    assert hostile.shown.count(HOSTILE) > 20


def inlined(url):
    """Returns the content of a data URI."""
    kind, content = url.split(";base64,")
    assert kind in ("data:image/png", "data:audio/wav")
    return base64.b64decode(content, validate=True)


def section_under(heading, text):
    """Returns the HTML of the section with this heading."""
    return text.split(f"<h2>{heading}</h2>")[1].split("</section>")[0]


def table_under(heading, text):
    """Returns the text of the table cells in the section with this heading, row by row."""
    return rows_of(section_under(heading, text))


def rows_of(table):
    """Returns the text of the cells of HTML tables, row by row."""

    def shown(cell):
        return " ".join(html.unescape(re.sub("<[^>]*>", "", cell)).split())

    return [
        [shown(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
        for row in re.findall(r"<tr[^>]*>(.*?)</tr>", table, re.DOTALL)
    ]


class Page(HTMLParser):
    """The links, images, text, tags and unclosed tags of a page; spaces as in a browser."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.images, self.recordings, self.links, self.alts = [], [], [], []
        self.titles = []
        self.tags, self.open = [], []
        self.shown = ""
        self.feed(text)
        self.close()
        self.shown = " ".join(self.shown.split())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, *attrs))
        if "src" in attrs:
            (self.recordings if tag == "audio" else self.images).append(attrs["src"])
        self.links += [attrs["href"]] if "href" in attrs else []
        self.alts += [attrs["alt"]] if tag == "img" else []
        self.titles += [attrs["title"]] if "title" in attrs else []
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "br":
            self.shown += " "

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.shown += data
