"""The synthetic corpora: speakers, sentences and recording condition of each part."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from arkasr.corpora.synthetic.acoustics import Condition, silence, simulate_recording
from arkasr.corpora.synthetic.grammar import sentences
from arkasr.corpora.synthetic.parallel import in_processes
from arkasr.corpora.synthetic.speakers import Speaker, make_speakers
from arkasr.corpora.synthetic.voices import SilentError, Synthesizer
from arkasr.interfaces import SAMPLE_RATE

# Increase this number whenever the same seed would give other samples. Corpora of another version are synthesised
# again.
VERSION = 2

QUIET = Condition(snr_db=(18, 40), room_s=(0.0, 0.15), room_share=0.15)
NOISY = Condition(snr_db=(6, 16), level_db=(-34, -18), room_s=(0.0, 0.2), room_share=0.2)
MEETING = Condition(snr_db=(14, 24), level_db=(-36, -26), room_s=(0.25, 0.45), room_share=0.4)
MIXED = Condition(snr_db=(12, 40), level_db=(-34, -20), room_s=(0.0, 0.35), room_share=0.25)


@dataclass(frozen=True)
class Role:
    """How one part of a corpus is synthesised.

    Attributes:
        part: Name of the part.
        sentences: Group of its sentences: `train`, `dev` or `test`.
        people: Group of its speakers, a key of `arkasr.corpora.synthetic.speakers.VARIANTS`.
        first_number: Number of its first speaker.
        condition: Recording condition.
        kind: Kind of the corpus, which decides the grammar: `mini` or `study`. Sentences of the kind `text` have none.
        lines: The sentences of the kind `text`.
    """

    part: str
    sentences: str
    people: str
    first_number: int
    condition: Condition
    kind: str = "mini"
    lines: tuple[str, ...] = ()


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
    # M and S are subsets of L, as in the real corpus.
    "wenet_speech": (
        Role("L", "train", "train", 1, MIXED),
        Role("DEV", "dev", "dev", 101, MIXED),
        Role("TEST_NET", "test", "test", 201, NOISY),
        Role("TEST_MEETING", "test", "odd", 301, MEETING),
    ),
}
# The study: clean speech with transcripts for Base, a pool of other speakers in other conditions that nobody has
# transcribed, and the teacher's own data.
STUDY_ROLES: dict[str, tuple[Role, ...]] = {
    "librispeech": (
        Role("train-clean-100", "train", "study base", 5001, QUIET, "study"),
        Role("train-clean-360", "train", "study pool", 6001, MIXED, "study"),
        Role("train-other-500", "train", "study teacher", 7001, MIXED, "study"),
        Role("dev-clean", "dev", "study dev", 8001, QUIET, "study"),
        Role("test-clean", "test", "study test", 9001, QUIET, "study"),
        Role("test-other", "test", "study odd", 9501, NOISY, "study"),
    ),
}


def roles_of(layout: str, kind: str) -> tuple[Role, ...]:
    """Return the parts of a synthetic corpus.

    Args:
        layout: `librispeech`, `aishell` or `wenet_speech`.
        kind: `mini` or `study`. `arkasr.corpora.synthetic.spoken_text` makes the parts of the kind `text`.

    Returns:
        The parts. Empty if there is no such corpus.
    """
    return {"mini": ROLES, "study": STUDY_ROLES}.get(kind, {}).get(layout, ())


@dataclass(frozen=True)
class Utterance:
    """One synthetic utterance.

    Attributes:
        speaker: Number of the speaker.
        index: Number of the utterance among those of its speaker, from 0.
        words: The sentence.
        samples: float32 [num_samples] at 16 kHz.
    """

    speaker: int
    index: int
    words: tuple[str, ...]
    samples: np.ndarray


def _rng(seed: int, role: Role, number: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, number, zlib.crc32(f"{role.part}/{purpose}".encode())])


def _shares(count: int, num_speakers: int) -> list[int]:
    return [count // num_speakers + (i < count % num_speakers) for i in range(num_speakers)]


def _synthesise(language: str, role: Role, speaker: Speaker, count: int, seed: int) -> Iterator[Utterance]:
    """Yield clean utterances of one speaker, with sentences of the grammar."""
    rng = _rng(seed, role, speaker.number, "words")
    yield from _speak(language, speaker, islice(sentences(language, role.sentences, rng, role.kind), count), rng)


def _speak(
    language: str, speaker: Speaker, source: Iterable[tuple[str, ...]], rng: np.random.Generator, skip: bool = False
) -> Iterator[Utterance]:
    """Yield clean utterances. Rate and pitch vary a little between them. skip: leave out what gives no sound."""
    with Synthesizer() as synthesizer:
        for index, words in enumerate(source):
            voice = replace(
                speaker.voice,
                rate=int(speaker.voice.rate * rng.uniform(0.93, 1.07)),
                pitch=speaker.voice.pitch + int(rng.integers(-5, 6)),
            )
            text = " ".join(words).lower() if language == "English" else "".join(words)
            with suppress(SilentError) if skip else nullcontext():
                yield Utterance(speaker.number, index, words, synthesizer.synthesise(text, voice))


def speaker_counts(language: str, role: Role, count: int) -> list[tuple[Speaker, int]]:
    """Distribute the sentences of a part over its speakers.

    Args:
        language: `English` or `Chinese`.
        role: The part.
        count: Number of sentences of the part.

    Returns:
        Pairs of a speaker and a number of sentences. Speakers without sentences are left out.
    """
    speakers = make_speakers(language, role.people, role.first_number)
    return [(speaker, n) for speaker, n in zip(speakers, _shares(count, len(speakers))) if n]


def clips(language: str, role: Role, count: int, seed: int) -> Iterator[Utterance]:
    """Yield the recordings of a part with one sentence each, with 0.1 to 0.3 s of silence at both ends.

    Args:
        language: `English` or `Chinese`.
        role: The part.
        count: Number of sentences of the part.
        seed: Seed of sentences, voices and acoustics.

    Yields:
        The utterances, speaker by speaker.
    """
    jobs = [(language, role, speaker, share, seed) for speaker, share in speaker_counts(language, role, count)]
    for utterances in in_processes(_clips_of, jobs):
        yield from utterances


def _clips_of(language: str, role: Role, speaker: Speaker, count: int, seed: int) -> list[Utterance]:
    rng = _rng(seed, role, speaker.number, "sound")
    return _recorded(_synthesise(language, role, speaker, count, seed), role, rng)


def spoken(language: str, role: Role, speaker: Speaker, first: int, seed: int) -> list[Utterance]:
    """Return the recordings of a block of sentences of a text.

    Args:
        language: `English` or `Chinese`.
        role: The part, of the kind `text`, with the sentences of the block.
        speaker: Who speaks.
        first: Number of the first sentence.
        seed: Seed of rate, pitch and acoustics.

    Returns:
        The utterances, without sentences that give no sound. `index` is the number of the sentence.
    """
    rng = _rng(seed, role, first, "words and sound")
    source = (tuple(line.split()) for line in role.lines)
    found = _recorded(_speak(language, speaker, source, rng, skip=True), role, rng)
    return [replace(utterance, index=first + utterance.index) for utterance in found]


def _recorded(utterances: Iterable[Utterance], role: Role, rng: np.random.Generator) -> list[Utterance]:
    found = []
    for utterance in utterances:
        padded = np.concatenate([silence(rng, 0.1, 0.3), utterance.samples, silence(rng, 0.1, 0.3)])
        found.append(replace(utterance, samples=simulate_recording(padded, role.condition, rng)))
    return found


@dataclass(frozen=True)
class LongRecording:
    """A recording of one speaker with several sentences.

    Attributes:
        speaker: Number of the speaker.
        samples: float32 [num_samples] at 16 kHz.
        segments: Begin in seconds, end in seconds, and words of each sentence.
    """

    speaker: int
    samples: np.ndarray
    segments: list[tuple[float, float, tuple[str, ...]]]


def recordings(language: str, role: Role, count: int, seed: int, per_recording: int = 20) -> Iterator[LongRecording]:
    """Yield the recordings of a part with several sentences each, with 0.3 to 0.8 s of silence between them.

    Args:
        language: `English` or `Chinese`.
        role: The part.
        count: Number of sentences of the part.
        seed: Seed of sentences, voices and acoustics.
        per_recording: Largest number of sentences per recording.

    Yields:
        The recordings, speaker by speaker.
    """
    shares = speaker_counts(language, role, count)
    jobs = [(language, role, speaker, share, seed, per_recording) for speaker, share in shares]
    for found in in_processes(_recordings_of, jobs):
        yield from found


def _recordings_of(
    language: str, role: Role, speaker: Speaker, count: int, seed: int, per_recording: int
) -> list[LongRecording]:
    rng = _rng(seed, role, speaker.number, "sound")
    utterances = list(_synthesise(language, role, speaker, count, seed))
    starts = range(0, len(utterances), per_recording)
    return [_join(utterances[i : i + per_recording], role.condition, rng) for i in starts]


def _join(utterances: list[Utterance], condition: Condition, rng: np.random.Generator) -> LongRecording:
    pieces, segments, margin = [silence(rng, 0.3, 0.8)], [], 0.12
    length = len(pieces[0])
    for utterance in utterances:
        begin, end = length / SAMPLE_RATE - margin, (length + len(utterance.samples)) / SAMPLE_RATE + margin
        segments.append((round(begin, 3), round(end, 3), utterance.words))
        pieces += [utterance.samples, silence(rng, 0.3, 0.8)]
        length += len(utterance.samples) + len(pieces[-1])
    return LongRecording(utterances[0].speaker, simulate_recording(np.concatenate(pieces), condition, rng), segments)
