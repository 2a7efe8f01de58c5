"""Synthesizes the embedded voices from a seed with a source-filter model.

A clip consists of a few syllables. Glottal pulses and breath noise (the source) pass through a
cascade of formant resonators (the filter; Fant, Acoustic Theory of Speech Production, 1960).
Fricatives and pauses separate the vowels. A speaker has a vocal tract, a voice quality and habits
of pitch and rhythm; the syllables, microphone, room and level are drawn for each clip.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy  # its submodules are imported on first use
from jaxtyping import Float, Int16

from meljax.data import decoded_cache
from meljax.data.decoded_cache import CachedItem
from meljax.util.devices import cores
from meljax.util.parallel import map_ahead
from meljax.util.progress import counter

SAMPLE_RATE = 16_000
"""Sample rate of every clip, Hz."""

# F1, F2, F3 in Hz of ten American English vowels, means of 33 men: i ɪ ɛ æ ɑ ɔ ʊ u ʌ ɝ
# (Peterson & Barney, Control methods used in a study of the vowels, JASA 24, 1952, table II).
_F1 = [270, 390, 530, 660, 730, 570, 440, 300, 640, 490]
_F2 = [2290, 1990, 1840, 1720, 1090, 840, 1020, 870, 1190, 1350]
_F3 = [3010, 2550, 2480, 2410, 2440, 2410, 2240, 2240, 2390, 1690]
_VOWELS = np.array(list(zip(_F1, _F2, _F3, strict=True)))

# F4, F5, F6 in Hz: quarter-wave resonances of a uniform tube as long as a man's vocal tract.
_UPPER_FORMANTS = np.array([3500, 4500, 5500])
_MALE_TRACT = 17.5  # cm
_MALE_F0 = 110.0  # Hz

_HOP = 256  # samples, 16 ms: formants move little in that time
_FRAME = 2 * _HOP
_FFT = 4 * _HOP  # long enough for the resonances to decay

_TRAITS, _CLIP = 0, 1  # streams of random numbers
_STRATA = 24  # speakers per Latin hypercube


class Speaker(NamedTuple):
    """The traits of a speaker, which are the same in all clips."""

    tract: float  # length of the vocal tract, cm
    pitch: float  # median pitch above the one expected from the length of the tract, semitones
    accent: float  # rise of pitch within a syllable, semitones
    declination: float  # drift of pitch over the utterance, semitones/s
    tremor: float  # depth of vibrato, semitones
    tremor_rate: float  # Hz
    open_quotient: float  # share of a glottal cycle in which the glottis is open
    cutoff: float  # frequency above which the source falls by a further 6 dB per octave, Hz
    breath: float  # level of breath noise relative to the pulses, dB
    jitter: float  # deviation of a cycle's length, relative
    shimmer: float  # deviation of a cycle's amplitude, relative
    vowel_space: float  # spread of F1 and F2 around the neutral vowel, relative
    third_formant: float  # F3 relative to the average
    syllable: float  # mean length of a syllable, s
    attack: float  # time until a vowel reaches its full amplitude, s
    pausing: float  # probability of a pause after a syllable
    hissing: float  # probability that a syllable starts with a fricative
    hiss: float  # center of a fricative's noise, Hz

    @property
    def median_f0(self) -> float:
        """Median fundamental frequency, Hz; short tracts tend to have high voices."""
        return _MALE_F0 * (_MALE_TRACT / self.tract) ** 2.5 * 2 ** (self.pitch / 12)


# Lowest and highest value of each trait, in the units of `Speaker`.
_RANGES = {
    "tract": (14, 18),
    "pitch": (-4, 4),
    "accent": (-9, 9),
    "declination": (-10, 6),
    "tremor": (0, 1.5),
    "tremor_rate": (3.5, 7.5),
    "open_quotient": (0.45, 0.85),
    "cutoff": (1000, 3000),
    "breath": (-30, -8),
    "jitter": (0.002, 0.015),
    "shimmer": (0.02, 0.1),
    "vowel_space": (0.7, 1.1),
    "third_formant": (0.9, 1.1),
    "syllable": (0.14, 0.32),
    "attack": (0.005, 0.1),
    "pausing": (0, 0.4),
    "hissing": (0.2, 0.9),
    "hiss": (3000, 6000),
}


Signal = Float[np.ndarray, " samples"]


class Voices(NamedTuple):
    """Labeled clips, sorted by name."""

    names: tuple[str, ...]  # e.g. 'voice07/voice07_042'
    labels: tuple[str, ...]  # e.g. 'voice07'
    digests: tuple[str, ...]  # sha256 of each clip's samples, hexadecimal
    clips: tuple[Int16[np.ndarray, " _"], ...]  # samples at `SAMPLE_RATE`


def draw_speaker(seed: int, index: int) -> Speaker:
    """Returns the traits of speaker `index` (from 0), spread evenly over their ranges.

    Latin hypercube sampling (McKay, Beckman & Conover, Technometrics 21, 1979) in blocks of
    `_STRATA`, so that a speaker does not depend on the number of speakers.
    """
    block, row = divmod(index, _STRATA)
    rng = np.random.default_rng((seed, _TRAITS, block))
    strata = rng.permuted(np.tile(np.arange(_STRATA), (len(_RANGES), 1)), axis=1)
    share = (strata + rng.random(strata.shape))[:, row] / _STRATA
    low, high = np.array(list(_RANGES.values())).T
    traits = low + share * (high - low)
    return Speaker(**dict(zip(_RANGES, traits.tolist(), strict=True)))


class _Articulation(NamedTuple):
    """How the voice changes over one clip."""

    semitones: Signal  # pitch above the speaker's median
    voicing: Signal  # amplitude of the voice, 0 to 1
    hissing: Signal  # amplitude of fricatives, 0 to 1
    formants: Float[np.ndarray, "frames 6"]  # Hz


def _articulate(rng: np.random.Generator, speaker: Speaker, samples: int) -> _Articulation:
    """Draws syllables: a consonant or gap, a vowel, and perhaps a pause."""
    seconds = samples / SAMPLE_RATE
    count = int(2 * seconds / speaker.syllable) + 3
    sounding = speaker.syllable * np.exp(0.15 * rng.standard_normal(count))
    pause = rng.uniform(0.08, 0.2, count) * (rng.random(count) < speaker.pausing)
    consonant = sounding * rng.uniform(0.25, 0.4, count)
    start = np.cumsum(sounding + pause) - (sounding + pause) - rng.uniform(0, sounding[0])
    stress = rng.uniform(0.5, 1, count)
    prominence = rng.normal(0, 0.7, count)
    hissed = rng.random(count) < speaker.hissing

    time = np.arange(samples) / SAMPLE_RATE
    k = np.searchsorted(start, time, side="right") - 1
    inside = time - start[k]
    into_vowel, left = inside - consonant[k], sounding[k] - inside
    voicing = stress[k] * np.clip(into_vowel / speaker.attack, 0, 1) * np.clip(left / 0.04, 0, 1)
    hissing = hissed[k] * np.sin(np.pi * np.clip(inside / consonant[k], 0, 1))
    glide = np.clip(into_vowel / (sounding - consonant)[k], 0, 1) - 0.5
    tremor = np.sin(2 * np.pi * (speaker.tremor_rate * time + rng.random()))
    semitones = (
        rng.normal(0, 1.5)
        + prominence[k]
        + speaker.accent * glide
        + speaker.declination * (time - seconds / 2)
        + speaker.tremor * tremor
    )
    middle = np.arange(0, samples + _HOP, _HOP) / SAMPLE_RATE
    knots = np.ravel([start + consonant, start + sounding * 0.9], order="F")
    targets = np.repeat(_targets(rng, speaker, count), 2, axis=0)
    formants = np.stack([np.interp(middle, knots, target) for target in targets.T], axis=1)
    return _Articulation(semitones, voicing, hissing, formants)


def _targets(
    rng: np.random.Generator, speaker: Speaker, count: int
) -> Float[np.ndarray, "syllables 6"]:
    """Returns the formants of random vowels, in Hz, for the speaker's vocal tract."""
    lower = _VOWELS[rng.integers(len(_VOWELS), size=count)]
    neutral = np.exp(np.log(_VOWELS).mean(axis=0))
    spread = np.array([speaker.vowel_space, speaker.vowel_space, 1])
    lower = neutral * (lower / neutral) ** spread * [1, 1, speaker.third_formant]
    upper = np.broadcast_to(_UPPER_FORMANTS, lower.shape)
    formants = np.concatenate([lower, upper], axis=1) * _MALE_TRACT / speaker.tract
    return formants * np.exp(rng.normal(0, 0.05, formants.shape))


def glottal_flow(phase: Signal, open_quotient: float) -> Signal:
    """Returns the flow through the glottis, 0 to 1, at a phase counted in cycles.

    A trigonometric pulse that opens for two thirds of its duration (Rosenberg, Effect of glottal
    pulse shape on the quality of natural vowels, JASA 49, 1971).
    """
    opening, closing = open_quotient * 2 / 3, open_quotient / 3
    cycle = phase % 1
    rise = 0.5 - 0.5 * np.cos(np.pi * np.minimum(cycle / opening, 1))
    fall = np.cos(np.pi / 2 * np.clip((cycle - opening) / closing, 0, 1))
    return rise * fall


def _source(rng: np.random.Generator, speaker: Speaker, said: _Articulation) -> Signal:
    """Returns glottal pulses with jitter, shimmer and breath noise, as radiated by the lips."""
    step = speaker.median_f0 / SAMPLE_RATE * 2 ** (said.semitones / 12)  # cycles per sample
    cycle = np.cumsum(step).astype(int)
    step = step * (1 + speaker.jitter * rng.standard_normal(cycle[-1] + 1)[cycle])
    phase = np.cumsum(step) + rng.random()
    cycle = phase.astype(int)
    flow = glottal_flow(phase, speaker.open_quotient)
    # Differences average the derivative over a sample, which reduces aliasing.
    pulses = np.diff(flow, prepend=flow[0])
    pulses *= 1 + speaker.shimmer * rng.standard_normal(cycle[-1] + 1)[cycle]
    keep = np.exp(-2 * np.pi * speaker.cutoff * rng.uniform(0.5, 2) / SAMPLE_RATE)
    pulses = scipy.signal.lfilter([1 - keep], [1, -keep], pulses)
    breath = rng.standard_normal(len(flow)) * (0.3 + flow)
    loudness = np.sqrt(np.mean(pulses**2)) * 10 ** (speaker.breath / 20)
    return said.voicing * (pulses + loudness * breath)


def vocal_tract(source: Signal, formants: Float[np.ndarray, "frames formants"]) -> Signal:
    """Returns a source filtered by a cascade of resonators that change every 16 ms.

    Digital resonators of unit gain at 0 Hz after Klatt (Software for a cascade/parallel formant
    synthesizer, JASA 67, 1980), bandwidths after Tappert, Martony & Fant (1963); applied to
    overlapping Hann windows. `formants` (Hz) has a row per 256 samples, and one more.
    """
    bandwidth = 50 * (1 + formants**2 / 6e6)
    radius = np.exp(-np.pi * bandwidth / SAMPLE_RATE)
    b = 2 * radius * np.cos(2 * np.pi * formants / SAMPLE_RATE)
    c = -(radius**2)
    poles = np.zeros((len(formants), 2 + 1 + 2 * formants.shape[1]))  # after two empty columns
    poles[:, 2] = 1
    for b_n, c_n in zip(b.T[:, :, None], c.T[:, :, None], strict=True):
        poles[:, 2:] -= b_n * poles[:, 1:-1] + c_n * poles[:, :-2]
    gain = np.prod(1 - b - c, axis=1, keepdims=True)
    response = (gain / scipy.fft.rfft(poles[:, 2:], _FFT)).astype(np.complex64)

    padded = np.zeros((len(formants) + 1) * _HOP, np.float32)
    padded[_HOP : _HOP + len(source)] = source
    window = np.hanning(_FRAME + 1)[:-1].astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_HOP] * window
    filtered = scipy.fft.irfft(scipy.fft.rfft(frames, _FFT) * response, _FFT).reshape(
        len(frames), -1, _HOP
    )
    total = np.zeros((len(frames) + filtered.shape[1] - 1, _HOP), np.float32)
    for part in range(filtered.shape[1]):
        total[part : part + len(frames)] += filtered[:, part]
    return total.ravel()[_HOP : _HOP + len(source)]


def _fricatives(rng: np.random.Generator, speaker: Speaker, said: _Articulation) -> Signal:
    """Returns noise around the speaker's hiss frequency, during the fricatives."""
    angle = 2 * np.pi * speaker.hiss * np.exp(rng.normal(0, 0.1)) / SAMPLE_RATE
    radius = np.exp(-np.pi * 1200 / SAMPLE_RATE)
    poles = [1, -2 * radius * np.cos(angle), radius**2]
    noise = rng.standard_normal(len(said.hissing))
    return said.hissing * scipy.signal.lfilter([1, 0, -1], poles, noise)


def _record(rng: np.random.Generator, voice: Signal) -> Int16[np.ndarray, " samples"]:
    """Adds room noise, a microphone's response and a level, all independent of the speaker."""
    size = scipy.fft.next_fast_len(len(voice), real=True)
    octaves = np.log2(np.maximum(scipy.fft.rfftfreq(size, 1 / SAMPLE_RATE), 50) / 1000)
    bumps = np.zeros_like(octaves)
    for center in rng.uniform(-4, 3, 6):
        bumps += rng.normal(0, 6) * np.exp(-0.5 * ((octaves - center) / 0.3) ** 2)
    color = 10 ** ((rng.uniform(-4, 4) * octaves + bumps) / 20)
    spectrum = scipy.fft.rfft(voice, size)
    noise = rng.standard_normal(2 * len(spectrum)).view(complex)
    noise *= 10 ** (rng.uniform(-6, 0) * octaves / 20)
    signal_to_noise = rng.uniform(15, 35)  # dB
    noise *= np.std(spectrum) / np.std(noise) * 10 ** (-signal_to_noise / 20)
    heard = scipy.fft.irfft((spectrum + noise) * color, size)[: len(voice)]
    peak = 10 ** (rng.uniform(-20, -1) / 20) * np.iinfo(np.int16).max
    return np.round(heard * (peak / np.abs(heard).max())).astype(np.int16)


def draw_clip(seed: int, speaker: int, clip: int) -> Int16[np.ndarray, " samples"]:
    """Returns a clip of 1.3 to 1.7 s; `speaker` and `clip` count from 0."""
    rng = np.random.default_rng((seed, _CLIP, speaker, clip))
    traits = draw_speaker(seed, speaker)
    said = _articulate(rng, traits, int(rng.uniform(1.3, 1.7) * SAMPLE_RATE))
    vowels = vocal_tract(_source(rng, traits, said), said.formants)
    hiss = _fricatives(rng, traits, said)
    balance = np.std(vowels) / max(np.std(hiss), 1e-9) * 10 ** (rng.uniform(-16, -8) / 20)
    return _record(rng, vowels + balance * hiss)


def plan(speakers: int, clips: int) -> list[tuple[int, int]]:
    """Returns (speaker, clip) of each clip; the first speakers may have one more than others."""
    # Names have two digits for the speaker and three for the clip.
    if not 1 <= speakers <= min(clips, 99) or clips > 999 * speakers:
        raise ValueError(f"cannot share {clips} clips among {speakers} speakers")
    each, extra = divmod(clips, speakers)
    return [(s, c) for s in range(speakers) for c in range(each + (s < extra))]


def synthesize(
    seed: int = 0,
    speakers: int = 24,
    clips: int = 2469,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Voices:
    """Makes `clips` clips. The same arguments give the same bytes; no clip depends on another.

    `progress` is called with the numbers of finished clips and of all clips after each clip.
    """
    pairs, made = plan(speakers, clips), []
    workers = cores()
    for clip in map_ahead(lambda pair: draw_clip(seed, *pair), pairs, workers, 2 * workers):
        made.append(clip)
        progress(len(made), len(pairs))
    digests = [hashlib.sha256(clip.tobytes()).hexdigest() for clip in made]
    return _voices(pairs, digests, made)


def load(cache: Path, seed: int = 0, speakers: int = 24, clips: int = 2469) -> Voices:
    """Returns the voices of `synthesize`, cached in the folder `cache` (about 120 MB)."""
    file = cache_file(cache, seed, speakers, clips)
    if kept := decoded_cache.load(file):
        digests = [item.digest for item in kept.values()]
        return _voices(plan(speakers, clips), digests, [item.array for item in kept.values()])
    with counter("making the embedded voices, once") as count:
        voices = synthesize(seed, speakers, clips, count)
    rows = zip(voices.names, voices.digests, voices.clips, strict=True)
    decoded_cache.save(file, {name: CachedItem("", digest, clip) for name, digest, clip in rows})
    return voices


def cache_file(cache: Path, seed: int, speakers: int, clips: int) -> Path:
    """Returns the cache file of a set, made by this version of the source and the libraries."""
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    settings = f"{source} numpy {np.__version__} scipy {scipy.__version__}"
    return decoded_cache.cache_file(cache, f"voices {seed} {speakers} {clips}", settings)


def _voices(
    pairs: list[tuple[int, int]], digests: Iterable[str], clips: Iterable[np.ndarray]
) -> Voices:
    labels = tuple(f"voice{speaker + 1:02d}" for speaker, _ in pairs)
    names = (
        f"{label}/{label}_{clip + 1:03d}" for label, (_, clip) in zip(labels, pairs, strict=True)
    )
    return Voices(tuple(names), labels, tuple(digests), tuple(clips))
