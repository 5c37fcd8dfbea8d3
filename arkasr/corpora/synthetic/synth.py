"""The miniature corpora: which part is spoken by whom, from which sentences, under which condition."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from arkasr.corpora.synthetic.acoustics import Condition, record, silence
from arkasr.corpora.synthetic.grammar import sentences
from arkasr.corpora.synthetic.speakers import Speaker, cast
from arkasr.corpora.synthetic.voices import Synthesizer
from arkasr.interfaces import SAMPLE_RATE

# Raised whenever the same seed would give other samples: miniature corpora of another version are spoken anew.
VERSION = 1

QUIET = Condition(snr_db=(18, 40), room_s=(0.0, 0.15), room_share=0.15)
NOISY = Condition(snr_db=(6, 16), level_db=(-34, -18), room_s=(0.0, 0.2), room_share=0.2)
MEETING = Condition(snr_db=(14, 24), level_db=(-36, -26), room_s=(0.25, 0.45), room_share=0.4)
MIXED = Condition(snr_db=(12, 40), level_db=(-34, -20), room_s=(0.0, 0.35), room_share=0.25)


@dataclass(frozen=True)
class Role:
    """One part of a corpus: the group its sentences come from, its people, and where they are recorded."""

    part: str
    sentences: str
    people: str
    first_number: int
    condition: Condition


ROLES: dict[str, tuple[Role, ...]] = {
    "librispeech": (
        Role("train-clean-5", "train", "train", 1001, QUIET),
        Role("dev-clean-2", "dev", "dev", 2001, QUIET),
        Role("test-clean", "test", "test", 3001, QUIET),
        Role("test-other", "test", "odd", 4001, NOISY),
    ),
    "aishell": (
        Role("train", "train", "train", 2, QUIET),
        Role("dev", "dev", "dev", 724, QUIET),
        Role("test", "test", "test", 764, QUIET),
    ),
    # L holds M holds S in the real corpus too, so their people and sentences are the same training ones.
    "wenet_speech": (
        Role("L", "train", "train", 1, MIXED),
        Role("DEV", "dev", "dev", 101, MIXED),
        Role("TEST_NET", "test", "test", 201, NOISY),
        Role("TEST_MEETING", "test", "odd", 301, MEETING),
    ),
}


@dataclass(frozen=True)
class Take:
    """One spoken sentence: the speaker, its number among the speaker's, the words, float32 samples at 16 kHz."""

    speaker: int
    index: int
    words: tuple[str, ...]
    samples: np.ndarray


def _rng(seed: int, role: Role, number: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, number, zlib.crc32(f"{role.part}/{purpose}".encode())])


def _shares(count: int, people: int) -> list[int]:
    return [count // people + (i < count % people) for i in range(people)]


def _speak(language: str, role: Role, speaker: Speaker, count: int, seed: int) -> Iterator[Take]:
    """Let one person speak clean sentences, each at a slightly other speed and pitch."""
    rng = _rng(seed, role, speaker.number, "words")
    source = sentences(language, role.sentences, rng)
    with Synthesizer() as synthesizer:
        for index in range(count):
            words = next(source)
            voice = replace(
                speaker.voice,
                rate=int(speaker.voice.rate * rng.uniform(0.93, 1.07)),
                pitch=speaker.voice.pitch + int(rng.integers(-5, 6)),
            )
            text = " ".join(words).lower() if language == "English" else "".join(words)
            yield Take(speaker.number, index, words, synthesizer.speak(text, voice))


def people(language: str, role: Role, count: int) -> list[tuple[Speaker, int]]:
    """Return the role's speakers and how many of `count` sentences each says; the silent ones are left out."""
    speakers = cast(language, role.people, role.first_number)
    return [(speaker, n) for speaker, n in zip(speakers, _shares(count, len(speakers))) if n]


def clips(language: str, role: Role, count: int, seed: int) -> Iterator[Take]:
    """Yield `count` finished clips of a role, one sentence each, with short silences around it."""
    for speaker, share in people(language, role, count):
        rng = _rng(seed, role, speaker.number, "sound")
        for take in _speak(language, role, speaker, share, seed):
            padded = np.concatenate([silence(rng, 0.1, 0.3), take.samples, silence(rng, 0.1, 0.3)])
            yield replace(take, samples=record(padded, role.condition, rng))


@dataclass(frozen=True)
class LongTake:
    """A long recording of one speaker: float32 samples at 16 kHz, and its sentences with begin and end in seconds."""

    speaker: int
    samples: np.ndarray
    segments: list[tuple[float, float, tuple[str, ...]]]


def recordings(language: str, role: Role, count: int, seed: int, per_recording: int = 20) -> Iterator[LongTake]:
    """Yield long recordings that hold `count` sentences of a role, with 0.3 to 0.8 s of silence in between."""
    for speaker, share in people(language, role, count):
        rng = _rng(seed, role, speaker.number, "sound")
        takes = list(_speak(language, role, speaker, share, seed))
        for start in range(0, len(takes), per_recording):
            yield _join(takes[start : start + per_recording], role.condition, rng)


def _join(takes: list[Take], condition: Condition, rng: np.random.Generator) -> LongTake:
    pieces, segments, margin = [silence(rng, 0.3, 0.8)], [], 0.12
    length = len(pieces[0])
    for take in takes:
        begin, end = length / SAMPLE_RATE - margin, (length + len(take.samples)) / SAMPLE_RATE + margin
        segments.append((round(begin, 3), round(end, 3), take.words))
        pieces += [take.samples, silence(rng, 0.3, 0.8)]
        length += len(take.samples) + len(pieces[-1])
    return LongTake(takes[0].speaker, record(np.concatenate(pieces), condition, rng), segments)
