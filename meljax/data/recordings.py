"""Notes and warnings about the recordings of a set: sample rates, channels and clipping."""

from collections import Counter
from collections.abc import Mapping

from meljax.data.decode.audio_file import AudioFacts
from meljax.util.phrases import count, listed


def notes(facts: Mapping[str, AudioFacts], sample_rate: int) -> list[str]:
    """Returns a line for each rate that is changed, and about channels that cancel.

    `facts`: those of each file by its path.
    """
    rates = Counter(each.rate for each in facts.values() if each.rate != sample_rate)
    lines = [resampling(rate, sample_rate, number) for rate, number in sorted(rates.items())]
    picked = [path for path, each in facts.items() if each.channel is not None]
    if picked:
        lines.append(
            f"the loudest channel of {count(len(picked), 'recording')} is used, because their "
            f"channels cancel or most are silent: {listed(picked)}"
        )
    return lines


def resampling(rate: int, new_rate: int, number: int) -> str:
    """Returns what resampling of a number of recordings loses."""
    what = f"{count(number, 'recording')}: {_kilohertz(rate)} → {_kilohertz(new_rate)}"
    if rate < new_rate:
        return f"{what}: there is nothing above {_kilohertz(rate / 2)}"
    return (
        f"{what}: everything above {_kilohertz(new_rate / 2)} is lost; "
        f"mel.sample_rate={rate} keeps it"
    )


def _kilohertz(hertz: int | float) -> str:
    return f"{hertz / 1000:g} kHz"


def warnings(facts: Mapping[str, AudioFacts]) -> list[str]:
    """Returns a line with the clipped recordings; `facts` as in `notes`."""
    clipped = [path for path, each in facts.items() if each.clipped]
    return [f"{count(len(clipped), 'clipped recording')}: {listed(clipped)}"] if clipped else []
