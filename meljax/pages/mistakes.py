"""The part of a run's page with pictures to look at, and sounds to listen to, one by one."""

import io
from collections.abc import Iterator, Sequence

import numpy as np
import soundfile
from jaxtyping import Int16
from matplotlib.figure import Figure

from meljax.pages import figures
from meljax.pages.parts import FIGURES, count, img, section, text
from meljax.results import MaskExample, Mistake, RunResults

LONGEST_SECONDS = 30
"""Of a sound on the page; of a longer one the middle is taken."""

# How many values the last maps have along so many pixels: ResNet rounds up, the CNN down.
_VALUES = {
    "resnet18": lambda pixels: -(-pixels // 32),
    "cnn": lambda pixels: max(1, pixels // 16),
}


def files(results: RunResults) -> Iterator[tuple[str, Figure | bytes]]:
    """Yields the pictures and sounds that the sections refer to."""
    for number, mistake in enumerate(results.mistakes, 1):
        yield _mistake_file(number, ".png"), figures.picture(mistake.picture)
        warm = figures.overlay(mistake.picture, mistake.evidence)
        yield _mistake_file(number, "_evidence.png"), figures.picture(warm)
        if mistake.sound is not None:
            yield _mistake_file(number, ".wav"), wav(mistake.sound, _rate(results))
    for number, example in enumerate(results.mask_examples, 1):
        yield _mask_file(number, "before"), figures.picture(example.clean)
        yield _mask_file(number, "after"), figures.picture(example.masked)


def wav(sound: Int16[np.ndarray, " samples"], rate: int) -> bytes:
    """Returns a sound, or the middle of one that is too long, as a WAV file of 16 bits."""
    longest = LONGEST_SECONDS * rate
    first = max(0, (len(sound) - longest) // 2)
    file = io.BytesIO()
    soundfile.write(file, sound[first : first + longest], rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def mistakes_section(results: RunResults) -> str:
    """Returns the worst mistakes: pictures, what spoke for the wrong class, sounds."""
    last = results.scores[0]
    wrong, total = int((~last.right).sum()), len(last.labels)
    if not results.mistakes:
        return section("Worst mistakes", f"<p>None: all {total:,} validation files are right.</p>")
    cells = "".join(_mistake(n, each, results) for n, each in enumerate(results.mistakes, 1))
    some = len(results.mistakes) < wrong
    words = (
        f"{wrong:,} of {count(total, 'validation file')} got a wrong class after the last epoch. "
        + (f"The {len(results.mistakes)} surest mistakes are shown. " if some else "")
        + "In brackets the probability given to the wrong class, the highest first; wrong labels "
        "tend to gather here. Time runs to the right, frequency upwards."
    )
    return section(
        "Worst mistakes",
        f"<p>{words}</p>",
        f"<p>{_evidence_words(results)}</p>",
        f'<div class="grid">{cells}</div>',
    )


def _evidence_words(results: RunResults) -> str:
    rows, columns, _ = results.mistakes[0].picture.shape
    values = _VALUES[results.facts["config"]["model.name"]]
    return (
        "Each spectrogram is shown a second time in grey, with what spoke for the wrong class in "
        "orange (Grad-CAM on the network’s last maps). It is coarse, "
        f"{values(columns)} × {values(rows)} values for the picture’s {columns} × {rows} pixels, "
        "smoothed in between: it tells the region, not the line."
    )


def _mistake(number: int, mistake: Mistake, results: RunResults) -> str:
    label, prediction = mistake.label, mistake.prediction
    plain = img(
        _mistake_file(number, ".png"),
        f"Spectrogram of {mistake.path}: {label}, predicted as {prediction} with "
        f"{mistake.probability:.1%}.",
    )
    warm = img(_mistake_file(number, "_evidence.png"), f"The same: what spoke for {prediction}.")
    rows, columns, _ = mistake.picture.shape
    shape = "two wide" if columns > 1.6 * rows else "two"
    return (
        f'<figure><div class="{shape}">{plain}{warm}</div>{_player(number, mistake)}'
        f"<figcaption><b>{text(label)}</b> → <b>{text(prediction)}</b> "
        f"({mistake.probability:.1%})<br><code>{text(mistake.path)}</code>"
        f"{_excerpt_words(mistake, results)}</figcaption></figure>"
    )


def _player(number: int, mistake: Mistake) -> str:
    if mistake.sound is None:
        return ""
    source = f"{FIGURES}/{_mistake_file(number, '.wav')}"
    return f'<audio controls preload="none" src="{source}"></audio>'


def _excerpt_words(mistake: Mistake, results: RunResults) -> str:
    if mistake.sound is None:
        return ""
    seconds = len(mistake.sound) / _rate(results)
    if seconds <= LONGEST_SECONDS:
        return ""
    return f"<br>Sound: the middle {LONGEST_SECONDS} s of {seconds:.0f} s."


def masks_section(examples: Sequence[MaskExample]) -> str:
    """Returns training pictures before and after masking; nothing where masks are off."""
    if not examples:
        return ""
    cells = "".join(_mask_pair(n, example) for n, example in enumerate(examples, 1))
    words = (
        "Training pictures lose bands of frequencies and stretches of time at random, anew in "
        "every epoch; in evaluation they are left whole."
    )
    return section("Masking", f"<p>{words}</p>", f'<div class="grid">{cells}</div>')


def _mask_pair(number: int, example: MaskExample) -> str:
    pictures = "".join(
        img(_mask_file(number, when), f"Spectrogram of {example.path} {when} masking.")
        for when in ("before", "after")
    )
    return (
        f'<figure><div class="two">{pictures}</div><figcaption>{text(example.label)}, before '
        f"and after<br><code>{text(example.path)}</code></figcaption></figure>"
    )


def _mistake_file(number: int, ending: str) -> str:
    return f"mistake_{number:02d}{ending}"


def _mask_file(number: int, when: str) -> str:
    return f"masks_{number}_{when}.png"


def _rate(results: RunResults) -> int:
    return results.facts["config"]["mel.sample_rate"]
