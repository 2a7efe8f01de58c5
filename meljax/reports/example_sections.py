"""The sections with single items on a run's page: the worst mistakes, and masked images."""

import io
from collections.abc import Iterator

import numpy as np
import soundfile
from jaxtyping import Int16
from matplotlib.figure import Figure

from meljax.evaluation.mistakes import Mistake
from meljax.reports import figures
from meljax.reports.html_page import FIGURES, code, escape, img, section
from meljax.runs.results import MaskExample, RunResults
from meljax.util.phrases import count

LONGEST_SECONDS = 30
"""Longer recordings are cut to this many seconds from their middle."""


def files(results: RunResults) -> Iterator[tuple[str, Figure | bytes]]:
    """Yields the name and content of each file of these sections."""
    for number, mistake in enumerate(results.mistakes, 1):
        yield _mistake_file(number, ".png"), figures.image(mistake.image)
        overlaid = figures.overlay(mistake.image, mistake.evidence)
        yield _mistake_file(number, "_evidence.png"), figures.image(overlaid)
        if mistake.audio is not None:
            yield _mistake_file(number, ".wav"), wav(mistake.audio, _rate(results))
    for number, example in enumerate(results.mask_examples, 1):
        yield _mask_file(number, "before"), figures.image(example.clean)
        yield _mask_file(number, "after"), figures.image(example.masked)


def wav(audio: Int16[np.ndarray, " samples"], rate: int) -> bytes:
    """Returns a 16-bit WAV file of a recording, or of the middle of a long one."""
    longest = LONGEST_SECONDS * rate
    first = max(0, (len(audio) - longest) // 2)
    file = io.BytesIO()
    soundfile.write(file, audio[first : first + longest], rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def mistakes_section(results: RunResults) -> str:
    """Returns the worst mistakes: images, Grad-CAM evidence, recordings."""
    last = results.scores[0]
    wrong, total = int((~last.right).sum()), len(last.labels)
    if not results.mistakes:
        words = f"None: all {count(total, 'validation file')} are right."
        return section("Worst mistakes", f"<p>{words}</p>")
    some = len(results.mistakes) < wrong
    words = (
        f"After the last epoch {wrong:,} of {count(total, 'validation file')} are wrong. "
        + (f"The {len(results.mistakes)} most confident mistakes are shown. " if some else "")
        + "In brackets: the probability of the predicted class, the highest first. Wrong labels "
        "often show up here. Time runs to the right, frequency upwards."
    )
    (height, width, _), (rows, columns) = results.mistakes[0].image.shape, results.mistakes[0].grid
    evidence = (
        "Each spectrogram is shown again in gray, with the evidence for the predicted class in "
        "orange (Grad-CAM on the network’s last feature maps). The evidence is coarse: "
        f"{columns} × {rows} values, interpolated to the image’s {width} × {height} pixels. It "
        "shows regions, not lines."
    )
    cells = "".join(_mistake(n, each, results) for n, each in enumerate(results.mistakes, 1))
    return section(
        "Worst mistakes",
        f"<p>{words}</p>",
        f"<p>{evidence}</p>",
        f'<div class="grid">{cells}</div>',
    )


def _mistake(number: int, mistake: Mistake, results: RunResults) -> str:
    label, prediction = mistake.label, mistake.prediction
    plain = img(
        _mistake_file(number, ".png"),
        f"Spectrogram of {mistake.path}: {label}, predicted as {prediction} with "
        f"{mistake.probability:.1%}.",
    )
    overlaid = img(_mistake_file(number, "_evidence.png"), f"The evidence for {prediction} in it.")
    rows, columns, _ = mistake.image.shape
    shape = "two wide" if columns > 1.6 * rows else "two"
    player, excerpt = _player(number, mistake, _rate(results))
    return (
        f'<figure><div class="{shape}">{plain}{overlaid}</div>{player}'
        f"<figcaption><b>{escape(label)}</b> → <b>{escape(prediction)}</b> "
        f"({mistake.probability:.1%})<br>{code(mistake.path)}{excerpt}</figcaption></figure>"
    )


def _player(number: int, mistake: Mistake, rate: int) -> tuple[str, str]:
    """Returns the player of a recording, and a line that says if it plays only a part."""
    if mistake.audio is None:
        return "", ""
    source = f"{FIGURES}/{_mistake_file(number, '.wav')}"
    player = f'<audio controls preload="none" src="{source}"></audio>'
    seconds = len(mistake.audio) / rate
    if seconds <= LONGEST_SECONDS:
        return player, ""
    return player, f"<br>Recording: the middle {LONGEST_SECONDS} s of {seconds:.0f} s."


def masks_section(results: RunResults) -> str:
    """Returns training images before and after masking; empty if masks are off."""
    if not results.mask_examples:
        return ""
    cells = "".join(_mask_pair(n, example) for n, example in enumerate(results.mask_examples, 1))
    words = (
        "In training, random frequency bands and time spans are masked, different ones in every "
        "epoch. In evaluation nothing is masked."
    )
    return section("Masking", f"<p>{words}</p>", f'<div class="grid">{cells}</div>')


def _mask_pair(number: int, example: MaskExample) -> str:
    images = "".join(
        img(_mask_file(number, when), f"Spectrogram of {example.path} {when} masking.")
        for when in ("before", "after")
    )
    return (
        f'<figure><div class="two">{images}</div><figcaption>{escape(example.label)}, before '
        f"and after<br>{code(example.path)}</figcaption></figure>"
    )


def _mistake_file(number: int, ending: str) -> str:
    return f"mistake_{number:02d}{ending}"


def _mask_file(number: int, when: str) -> str:
    return f"masks_{number}_{when}.png"


def _rate(results: RunResults) -> int:
    return results.info.config["mel.sample_rate"]
