"""Runs made up for the tests of pages, and a reader of what pages show."""

from html.parser import HTMLParser

import numpy as np

from meljax import config
from meljax.results import MaskExample, Mistake, RunResults, Scored

ODD = ["<b>&\"'", "姓名", "🦉", "caf\udce9", "$x_$", "two\nlines", "W" * 300, ""]


def scored(side, epoch, chosen, classes, items, wrong, seed=0, first=0):
    """A set in which `wrong` items from the `first` on are taken for the next class."""
    labels = np.arange(items) % classes
    probabilities = np.random.default_rng(seed).uniform(0, 0.1, (items, classes))
    predicted = (
        labels + (np.arange(items) - first < wrong) * (np.arange(items) >= first)
    ) % classes
    probabilities[np.arange(items), predicted] += 1
    probabilities /= probabilities.sum(1, keepdims=True)
    return Scored(side, epoch, chosen, np.log(probabilities), np.arange(items), labels)


def history(epochs):
    """Curves that fall and rise evenly."""
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


def make_facts(classes, settings=None, weights="imagenet", **data):
    return {
        "config": config.flat(config.Config()) | (settings or {}),
        "seed": 0,
        "weights": weights,
        "data": {
            "kind": "sound",
            "classes": list(classes),
            "files": {"train": 90, "val": 10, "test": 0},
            "ignored": 3,
            "skipped": [],
            "warnings": [],
            "fingerprint": "abc",
        }
        | data,
        "device_kind": "cpu",
        "platform": "cpu",
        "device_count": 1,
        "versions": {"python": "3.11"},
    }


def make_results(
    names=("ann", "bob", "cy", "di"), epochs=4, mistakes=2, scores=None, sound=None, **facts
):
    picture = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8, 1)
    count = len(names)
    best = max(1, epochs - 1)
    wrong = [
        Mistake(f"{n}.wav", names[0], names[1], 0.9, picture, picture[:, :, 0], sound)
        for n in range(mistakes)
    ]
    return RunResults(
        name="run",
        facts=make_facts(names, **facts),
        classes=tuple(names),
        history=history(epochs),
        scores=scores
        or [
            scored("val", epochs, False, count, 20, mistakes),
            scored("val", best, True, count, 20, min(mistakes, 1)),
        ],
        mistakes=wrong,
        mask_examples=[MaskExample("m.wav", names[0], picture, picture / 2)],
    )


class Page(HTMLParser):
    """What a page refers to, shows and leaves open."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text):
        super().__init__()
        self.images, self.sounds, self.links, self.alts = [], [], [], []
        self.tags, self.open = set(), []
        self.shown = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        if "src" in attrs:
            (self.sounds if tag == "audio" else self.images).append(attrs["src"])
        self.links += [attrs["href"]] if "href" in attrs else []
        self.alts += [attrs["alt"]] if tag == "img" else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.shown += data
