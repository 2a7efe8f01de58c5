"""The page that a training run leaves: what it reached, what it confuses, how it was made."""

import html
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from meljax import figures, metrics, runs
from meljax.config import KEYS
from meljax.data.files import NOUNS
from meljax.metrics import Row
from meljax.paths import write_whole
from meljax.results import MaskExample, Mistake, RunResults, Scored

FIGURES = "figures"
"""The folder of the pictures, beside the page."""

PAIRS = 8
"""How many of the most confused pairs of classes are listed."""

_NETWORKS = {"resnet18": "ResNet-18", "cnn": "small convolutional network"}
_SIDES = {"train": "training", "val": "validation", "test": "test"}
# Text, a short key, a value of any length, a number.
_CELLS = {"t": "", "k": ' class="key"', "v": ' class="value"', "r": ' class="number"'}
_ABSENT = "–"


def write_report(workdir: Path, results: RunResults) -> Path:
    """Writes `report.html` and its pictures into `workdir`; returns the page's path.

    The page comes last and whole: where it lies, its pictures lie too.
    """
    folder = workdir / FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    written = set()
    for name, figure in _figures(results):
        tight = "tight" if name == "confusion.png" else None
        figure.savefig(folder / name, bbox_inches=tight)
        written.add(name)
    write_whole(workdir / runs.REPORT, page(results))
    # A report of fewer epochs may have left pictures of another network's mistakes.
    for old in (*folder.glob("mistake_*.png"), *folder.glob("masks_*.png")):
        if old.name not in written:
            old.unlink()
    return workdir / runs.REPORT


def page(results: RunResults) -> str:
    """Returns the page, as HTML that refers to nothing but the run's own files."""
    body = "\n".join(
        (
            f"<h1>{_text(results.name)}</h1>",
            _headline(results),
            _cautions(results.facts),
            _score_table(results),
            _training(results),
            _confusion(results),
            _classes(results),
            _mistakes(results),
            _masks(results.mask_examples),
            _making(results),
        )
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(results.name)} – meljax</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def lowest_before_rise(
    training: Float[np.ndarray, " epochs"], validation: Float[np.ndarray, " epochs"]
) -> int | None:
    """Returns where the validation loss is lowest (from 0) if it rises after, else `None`.

    It rises if, over the last tenth of the epochs, its median is 5 % and 0.01 nats above the lowest
    while the training loss went on falling.
    """
    lowest = int(np.argmin(validation))
    tail = slice(max(lowest + 1, len(validation) - max(1, len(validation) // 10)), None)
    if lowest == len(validation) - 1:
        return None
    rises = np.median(validation[tail]) > 1.05 * validation[lowest] + 0.01
    return lowest if rises and np.median(training[tail]) < training[lowest] else None


def confused_pairs(
    confusion: Int[np.ndarray, "classes classes"], limit: int
) -> list[tuple[int, int]]:
    """Returns (true, predicted) of the cells off the diagonal that count most, at most `limit`."""
    mistakes = confusion * (1 - np.eye(len(confusion), dtype=confusion.dtype))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:limit]
    rows, columns = np.unravel_index(order, mistakes.shape)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if mistakes[r, c]]


def _figures(results: RunResults) -> Iterator[tuple[str, Figure]]:
    """Yields each picture's file name and figure."""
    history, best = results.history, _best(results)
    epochs = _column(history, "epoch").astype(int)
    for side, short in (("training", "train"), ("validation", "val")):
        losses = _column(history, f"{short}_loss")
        yield f"{side}_loss.png", figures.loss_curve(epochs, losses, side)
    for name, title in (("accuracy", "Accuracy"), ("f1", "Macro-F1")):
        train, val = (_column(history, f"{side}_{name}") for side in ("train", "val"))
        yield f"{name}.png", figures.score_curves(epochs, train, val, title, best.epoch)
    confusion = results.scores[0].confusion
    yield "confusion.png", figures.confusion_matrix(confusion, results.classes)
    for number, mistake in enumerate(results.mistakes, 1):
        yield _mistake_file(number), figures.picture(mistake.picture)
    for number, example in enumerate(results.mask_examples, 1):
        yield _mask_file(number, "before"), figures.picture(example.clean)
        yield _mask_file(number, "after"), figures.picture(example.masked)


def _mistake_file(number: int) -> str:
    return f"mistake_{number:02d}.png"


def _mask_file(number: int, when: str) -> str:
    return f"masks_{number}_{when}.png"


def _column(history: Sequence[Row], key: str) -> Float[np.ndarray, " epochs"]:
    return np.array([row[key] for row in history], float)


def _best(results: RunResults) -> Scored:
    """Returns the best epoch on the validation set; the last one where no other was chosen."""
    return next((s for s in results.scores if s.chosen), results.scores[0])


def _headline(results: RunResults) -> str:
    facts, last = results.facts, results.scores[0]
    config, files = facts["config"], facts["data"]["files"]
    noun = NOUNS[facts["data"]["kind"]]
    counts = ", ".join(f"{n:,} for {_SIDES[side]}" for side, n in files.items() if n)
    network = _NETWORKS.get(config["model.name"], config["model.name"])
    chance = np.bincount(last.labels).max() / len(last.labels)
    first = [
        f"A {_text(network)} learned to tell <b>{len(results.classes)} classes</b> apart from "
        f"{sum(files.values()):,} {noun}s of {_data_name(config)} ({counts}).",
        f"After {_count(last.epoch, 'epoch')} it gets <b>{last.accuracy:.1%}</b> of "
        f"the validation {noun}s right {_interval(last.accuracy_interval)}, with a macro-F1 of "
        f"<b>{last.macro_f1:.1%}</b> {_interval(last.macro_f1_interval)}.",
    ]
    second = [
        f"Always naming the most frequent class would get {chance:.1%} right.",
        _best_sentence(results),
        *(_test_sentence(s, noun) for s in results.scores if s.side == "test" and not s.chosen),
    ]
    return f'<p class="lead">{" ".join(first)}</p>\n<p>{" ".join(filter(None, second))}</p>'


def _best_sentence(results: RunResults) -> str:
    last, best = results.scores[0], _best(results)
    if last.epoch == 1:
        return ""
    if best.epoch == last.epoch:
        return "The last epoch is also the best one."
    return (
        f"The best epoch, {best.epoch}, got {best.accuracy:.1%} "
        f"{_interval(best.accuracy_interval)} and a macro-F1 of {best.macro_f1:.1%} "
        f"{_interval(best.macro_f1_interval)}, but it was chosen on these same files: "
        "expect less on new ones."
    )


def _test_sentence(scored: Scored, noun: str) -> str:
    return (
        f"On the {len(scored.labels):,} test {noun}s, which played no part in training or choice, "
        f"the last epoch gets <b>{scored.accuracy:.1%}</b> {_interval(scored.accuracy_interval)} "
        f"right, with a macro-F1 of <b>{scored.macro_f1:.1%}</b> "
        f"{_interval(scored.macro_f1_interval)}."
    )


def _data_name(config: dict[str, Any]) -> str:
    path = config["data.path"]
    return f"<code>{_text(path)}</code>" if path else "the embedded synthetic voices"


def _cautions(facts: dict[str, Any]) -> str:
    """Returns what must not be missed, in a box of its own; nothing if there is nothing."""
    data = facts["data"]
    lines = [_text(line) for line in data["warnings"]]
    if runs.lacks_pretraining(facts):
        lines.insert(
            0,
            f"<b>The network was not pretrained</b>: its weights began {_text(facts['weights'])}. "
            "From random weights it needs more data and time, and usually scores lower.",
        )
    if data["skipped"]:
        count = _count(len(data["skipped"]), "file")
        lines.append(
            f"<details><summary>{count} could not be used and "
            f"{'was' if len(data['skipped']) == 1 else 'were'} left out</summary>"
            f"{_list(map(_text, data['skipped']))}</details>"
        )
    if not lines:
        return ""
    return f'<section class="caution"><h2>Warnings</h2>{_list(lines)}</section>'


def _score_rows(results: RunResults) -> list[tuple[str, Scored]]:
    """Returns every score once: the best epoch may be the last."""
    last, rows = results.scores[0].epoch, []
    for scored in results.scores:
        if not scored.chosen:
            rows.append(("last epoch", scored))
        elif scored.epoch != last:
            on = "the same files" if scored.side == "val" else "the validation set"
            rows.append((f"best epoch, chosen on {on}", scored))
    return rows


def _score_table(results: RunResults) -> str:
    rows = [
        (
            which,
            str(scored.epoch),
            f"{_SIDES[scored.side]}, {len(scored.labels):,}",
            f"<b>{scored.accuracy:.1%}</b> {_interval(scored.accuracy_interval)}",
            f"<b>{scored.macro_f1:.1%}</b> {_interval(scored.macro_f1_interval)}",
            f"{scored.loss:.3f}",
        )
        for which, scored in _score_rows(results)
    ]
    header = ("weights of", "epoch", "files", "accuracy", "macro-F1", "loss")
    note = (
        "In brackets: 95 % intervals, Wilson’s for accuracy, the bootstrap’s for macro-F1 (the "
        "mean of the classes’ F1). They tell how far the score of as many other files could be "
        "off; they do not know whether new recordings will be like these. Loss is cross-entropy "
        "in nats."
    )
    return _section("Scores", _table(header, rows, "trtrrr"), f'<p class="note">{note}</p>')


def _training(results: RunResults) -> str:
    history, best = results.history, _best(results)
    last, count = history[-1], _count(len(history), "epoch")
    losses = [
        _img(
            f"{side}_loss.png",
            f"{side.capitalize()} loss over {count}: {history[0][f'{short}_loss']:.3g} after the "
            f"first epoch, {last[f'{short}_loss']:.3g} after the last.",
        )
        for side, short in (("training", "train"), ("validation", "val"))
    ]
    scores = [
        _img(
            f"{name}.png",
            f"{title} over {count}. After the last epoch: training {last[f'train_{name}']:.1%}, "
            f"validation {last[f'val_{name}']:.1%}. Best epoch: {best.epoch}.",
        )
        for name, title in (("accuracy", "Accuracy"), ("f1", "Macro-F1"))
    ]
    note = (
        "Training curves are measured during the training steps, while the weights still change "
        "and with masks on; they may hence lie below the validation curves, which are measured "
        "after each epoch on whole pictures."
    )
    return _section(
        "Training",
        f'<div class="pair">{"".join(losses + scores)}</div>',
        _guidance(history),
        f'<p class="note">{note}</p>',
    )


def _guidance(history: Sequence[Row]) -> str:
    """Returns what to make of a validation loss that rises; nothing if it does not."""
    validation = _column(history, "val_loss")
    lowest = lowest_before_rise(_column(history, "train_loss"), validation)
    if lowest is None:
        return ""
    return (
        f'<p class="guidance"><b>Overfitting:</b> the validation loss was lowest '
        f"({validation[lowest]:.3g}) at epoch {history[lowest]['epoch']:.0f}, "
        f"{_count(len(history) - 1 - lowest, 'epoch')} before the end, and has risen "
        f"since (to {validation[-1]:.3g}) while the training loss went on falling; more data, "
        "wider masks or fewer epochs may help.</p>"
    )


def _confusion(results: RunResults) -> str:
    last, classes = results.scores[0], results.classes
    right, total = int(np.trace(last.confusion)), len(last.labels)
    alt = (
        f"Confusion matrix of {len(classes)} classes on {total:,} validation files after epoch "
        f"{last.epoch}: {right:,} lie on the diagonal."
    )
    words = "Rows are true classes, columns predicted ones; the colour is the share of the row."
    if len(classes) > figures.COUNTED_CLASSES:
        words += " With so many classes the counts are left out."
    if len(classes) > figures.LABELLED_CLASSES:
        words += " Not every class is named."
    if not all(map(figures.drawable, classes)):
        words += " Names in another script stand there as their number in the table below."
    return _section(
        "Confusion matrix",
        f"<p>{words} Weights of the last epoch, validation files.</p>",
        f'<a href="{FIGURES}/confusion.png">{_img("confusion.png", alt)}</a>',
        _pairs(last.confusion, classes),
    )


def _pairs(confusion: Int[np.ndarray, "classes classes"], classes: Sequence[str]) -> str:
    pairs = confused_pairs(confusion, PAIRS)
    if not pairs:
        return "<p>No class was taken for another.</p>"
    lines = (
        f"<b>{_text(classes[true])}</b> taken for <b>{_text(classes[predicted])}</b>: "
        f"{confusion[true, predicted]} of {_count(int(confusion[true].sum()), 'file')}"
        for true, predicted in pairs
    )
    return f"<h3>Most confused</h3>{_list(lines)}"


def _classes(results: RunResults) -> str:
    confusion = results.scores[0].confusion
    precision, recall, f1 = metrics.class_scores(confusion)
    predicted, true = confusion.sum(0), confusion.sum(1)
    occurs = predicted + true > 0
    order = np.lexsort((np.arange(len(f1)), recall, f1, ~occurs))
    rows = [
        (
            str(i + 1),
            _text(results.classes[i]),
            f"{true[i]:,}",
            f"{precision[i]:.1%}" if predicted[i] else _ABSENT,
            f"{recall[i]:.1%}" if true[i] else _ABSENT,
            f"{f1[i]:.1%}" if occurs[i] else _ABSENT,
        )
        for i in order
    ]
    header = ("#", "class", "files", "precision", "recall", "F1")
    words = (
        "Worst first; last epoch, validation files. Precision: of the files given this class, the "
        f"share that belong to it. Recall: of its files, the share that were given it. {_ABSENT}: "
        "there are none."
    )
    return _section("Classes", f"<p>{words}</p>", _table(header, rows, "rtrrrr"))


def _mistakes(results: RunResults) -> str:
    last = results.scores[0]
    wrong, total = int((last.predictions != last.labels).sum()), len(last.labels)
    if not results.mistakes:
        return _section("Worst mistakes", f"<p>None: all {total:,} validation files are right.</p>")
    cells = "".join(
        _mistake(_mistake_file(n), mistake) for n, mistake in enumerate(results.mistakes, 1)
    )
    some = len(results.mistakes) < wrong
    words = (
        f"{wrong:,} of {_count(total, 'validation file')} got a wrong class after the last epoch. "
        + (f"The {len(results.mistakes)} surest mistakes are shown. " if some else "")
        + "In brackets the probability given to the wrong class, the highest first; wrong labels "
        "tend to gather here. Time runs to the right, frequency upwards."
    )
    return _section("Worst mistakes", f"<p>{words}</p>", f'<div class="grid">{cells}</div>')


def _mistake(file: str, mistake: Mistake) -> str:
    alt = (
        f"Spectrogram of {mistake.path}: {mistake.label}, predicted as {mistake.prediction} "
        f"with {mistake.probability:.1%}."
    )
    return (
        f"<figure>{_img(file, alt)}<figcaption><b>{_text(mistake.label)}</b> → "
        f"<b>{_text(mistake.prediction)}</b> ({mistake.probability:.1%})<br>"
        f"<code>{_text(mistake.path)}</code></figcaption></figure>"
    )


def _masks(examples: Sequence[MaskExample]) -> str:
    if not examples:
        return ""
    cells = "".join(_mask_pair(n, example) for n, example in enumerate(examples, 1))
    words = (
        "Training pictures lose bands of frequencies and stretches of time at random, anew in "
        "every epoch; in evaluation they are left whole."
    )
    return _section("Masking", f"<p>{words}</p>", f'<div class="pair">{cells}</div>')


def _mask_pair(number: int, example: MaskExample) -> str:
    pictures = "".join(
        _img(_mask_file(number, when), f"Spectrogram of {example.path} {when} masking.")
        for when in ("before", "after")
    )
    return (
        f'<figure><div class="masks">{pictures}</div><figcaption>{_text(example.label)}, before '
        f"and after<br><code>{_text(example.path)}</code></figcaption></figure>"
    )


def _making(results: RunResults) -> str:
    facts = results.facts
    links = ", ".join(
        f'<a href="{name}">{name}</a> ({what})'
        for name, what in (
            (runs.CONFIG, "settings, versions"),
            (runs.SPLIT, "which file was on which side"),
            (runs.METRICS, "every epoch’s numbers"),
        )
    )
    return _section(
        "How it was made",
        _table(("", ""), _circumstances(facts, results.history), "kt"),
        "<h3>Settings</h3><p>In bold: changed from the default.</p>",
        _settings(facts["config"]),
        f"<p>Files: {links}.</p>",
    )


def _circumstances(facts: dict[str, Any], history: Sequence[Row]) -> list[tuple[str, str]]:
    """Returns (name, value) of what else a run depends on, as HTML."""
    data, seconds = facts["data"], _column(history, "seconds")
    files = ", ".join(f"{n:,} {_SIDES[side]}" for side, n in data["files"].items())
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    speed = np.median(_column(history, "images_per_second"))
    return [
        ("data", _data_name(facts["config"])),
        (
            "files",
            f"{files}; {data['ignored']:,} of other kinds ignored, "
            f"{len(data['skipped']):,} unusable",
        ),
        ("fingerprint of the data", f"<code>{_text(data['fingerprint'])}</code>"),
        ("weights began", _text(facts["weights"])),
        ("seed", str(facts["seed"])),
        (
            "device",
            f"{facts['device_count']} × {_text(facts['device_kind'])} ({_text(facts['platform'])})",
        ),
        (
            "time",
            f"{_duration(seconds.sum())} in all, {_duration(float(np.median(seconds)))} per "
            f"epoch (median), {speed:,.0f} images/s in training (median)",
        ),
        ("versions", _text(versions)),
    ]


def _settings(config: dict[str, Any]) -> str:
    rows = []
    for name, value in config.items():
        field = KEYS.get(name)
        changed = field is None or value != field.default
        name, shown = f"<code>{_text(name)}</code>", f"<code>{_text(repr(value))}</code>"
        if changed:
            name, shown = f"<b>{name}</b>", f"<b>{shown}</b>"
        default = _text(repr(field.default)) if field else _ABSENT
        meaning = _text(field.metadata["doc"]) if field else "unknown to this version"
        rows.append((name, shown, f"<code>{default}</code>", meaning))
    return _table(("key", "value", "default", "meaning"), rows, "kvkt")


def _text(text: str) -> str:
    """Returns `text` as HTML, also of file names that are no valid Unicode."""
    return html.escape(text.encode(errors="replace").decode())


def _interval(bounds: tuple[float, float] | None) -> str:
    inside = f"{bounds[0]:.1%} to {bounds[1]:.1%}" if bounds else "no interval without a mistake"
    return f'<span class="interval">({inside})</span>'


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{title}</h2>\n" + "\n".join(parts) + "\n</section>"


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], kinds: str) -> str:
    """Returns a table of HTML cells; `kinds` has a letter per column: see `_CELLS`."""

    def line(cells: Sequence[str], tag: str) -> str:
        parts = zip(cells, kinds, strict=True)
        filled = (f"<{tag}{_CELLS[kind]}>{cell}</{tag}>" for cell, kind in parts)
        return f"<tr>{''.join(filled)}</tr>"

    head = f"<thead>{line(header, 'th')}</thead>" if any(header) else ""
    body = "\n".join(line(row, "td") for row in rows)
    return f'<div class="scroll"><table>{head}<tbody>\n{body}\n</tbody></table></div>'


def _img(file: str, alt: str) -> str:
    return f'<img src="{FIGURES}/{file}" alt="{_text(alt)}">'


_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { max-width: 1000px; margin: 0 auto; padding: 24px 20px 64px; color: #1d2129;
  background: #fff; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0.5em 0 0.4em; }
h2 { font-size: 1.35rem; margin: 2.2em 0 0.6em; padding-bottom: 0.2em;
  border-bottom: 1px solid #dfe3e8; }
h3 { font-size: 1.05rem; margin: 1.4em 0 0.4em; }
p { max-width: 46em; }
.lead { font-size: 1.12rem; }
.note, .interval, figcaption { color: #5b6470; }
.note { font-size: 0.9rem; }
.interval { white-space: nowrap; }
.caution, .guidance { background: #fff6e0; border-left: 5px solid #e69f00; border-radius: 4px;
  padding: 12px 18px; }
.caution h2 { margin: 0 0 0.3em; border: 0; padding: 0; }
.caution ul { margin: 0; padding-left: 1.2em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.92rem; }
th, td { padding: 5px 14px 5px 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #e9ecef; unicode-bidi: isolate; }
th { color: #5b6470; font-weight: 600; white-space: nowrap; }
.key { white-space: nowrap; }
.value { min-width: 11em; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 0.88em;
  overflow-wrap: anywhere; unicode-bidi: isolate; }
img { max-width: 100%; height: auto; display: block; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(380px, 100%), 1fr));
  gap: 20px; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 20px; }
.grid img, .masks img { width: 100%; }
.masks { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; }
figure { margin: 0; break-inside: avoid; }
figcaption { font-size: 0.85rem; line-height: 1.4; margin-top: 6px; overflow-wrap: anywhere; }
figcaption b { color: #1d2129; }
a { color: #0072b2; }
@media print { body { padding: 0; font-size: 11pt; } h2 { break-after: avoid; }
  img, tr, .caution { break-inside: avoid; } }
@media (max-width: 480px) { body { padding: 12px 14px 40px; } h1 { font-size: 1.6rem; }
  .lead { font-size: 1.02rem; }
  .grid { grid-template-columns: repeat(2, 1fr); gap: 14px; }
  table { font-size: 0.78rem; } th, td { padding: 4px 7px 4px 0; }
  th, .number, .interval { white-space: normal; } .masks { gap: 4px; } }
"""
