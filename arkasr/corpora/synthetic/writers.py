"""Writers of the synthetic corpora, each in the on-disk layout of the real corpus."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from arkasr.corpora.synthetic.acoustics import write_recording
from arkasr.corpora.synthetic.grammar import sentences
from arkasr.corpora.synthetic.ogg import set_serial
from arkasr.corpora.synthetic.spoken_text import AUDIO, write_jsonl
from arkasr.corpora.synthetic.synth import LongRecording, Role, clips, recordings
from arkasr.interfaces import SAMPLE_RATE

Roles = Sequence[Role]
Sizes = dict[str, int]
Done = Callable[..., None]

# Text without audio, for tokenizers, under the name that it has in LibriSpeech. Only the study has it.
TEXT, TEXT_SENTENCES = "librispeech-lm-norm.txt", 8000
# About 70 kbit/s. Encoding is fastest there, because libopus does not use its slow speech model.
_OPUS_LEVEL = 0.75


def write_librispeech(folder: Path, language: str, roles: Roles, sizes: Sizes, seed: int, done: Done) -> None:
    """Write `<part>/<speaker>/<chapter>/<speaker>-<chapter>-<utterance>.flac` and one trans.txt per chapter.

    A study also gets a file of text without audio.

    Args:
        folder: Root of the corpus.
        language: `English` or `Chinese`.
        roles: The parts.
        sizes: Number of sentences of each part.
        seed: Seed of sentences, voices and acoustics.
        done: Called with the number of sentences written since the last call. Its default is 1.
    """
    speakers = []
    for role in roles:
        lines: dict[Path, list[str]] = {}
        for utterance in clips(language, role, sizes[role.part], seed):
            chapter = 100000 + utterance.speaker
            name = f"{utterance.speaker}-{chapter}-{utterance.index:04d}"
            home = folder / role.part / str(utterance.speaker) / str(chapter)
            write_recording(home / f"{name}.flac", utterance.samples, subtype="PCM_16")
            transcript = home / f"{utterance.speaker}-{chapter}.trans.txt"
            lines.setdefault(transcript, []).append(f"{name} {' '.join(utterance.words)}\n")
            done()
        for path, rows in lines.items():
            path.write_text("".join(rows), encoding="utf-8")
            speakers.append(f"{path.parent.parent.name} | ? | {role.part} | synthetic\n")
    if any(role.kind == "study" for role in roles):
        rng = np.random.default_rng([seed, len(roles)])
        lines_of_text = islice(sentences(language, "train", rng, "wide study"), TEXT_SENTENCES)
        (folder / TEXT).write_text("".join(f"{' '.join(words)}\n" for words in lines_of_text), encoding="utf-8")
    (folder / "SPEAKERS.TXT").write_text(";ID  |SEX| SUBSET | NAME\n" + "".join(speakers), encoding="utf-8")


def write_aishell(folder: Path, language: str, roles: Roles, sizes: Sizes, seed: int, done: Done) -> None:
    """Write `data_aishell/wav/<part>/<Sxxxx>/BAC009<Sxxxx>W<nnnn>.wav` and one transcript file.

    Args:
        folder: Root of the corpus.
        language: `English` or `Chinese`.
        roles: The parts.
        sizes: Number of sentences of each part.
        seed: Seed of sentences, voices and acoustics.
        done: Called with the number of sentences written since the last call. Its default is 1.
    """
    home, lines = folder / "data_aishell", []
    for role in roles:
        for utterance in clips(language, role, sizes[role.part], seed):
            speaker = f"S{utterance.speaker:04d}"
            name = f"BAC009{speaker}W{utterance.index + 121:04d}"
            write_recording(home / "wav" / role.part / speaker / f"{name}.wav", utterance.samples, subtype="PCM_16")
            lines.append(f"{name} {' '.join(utterance.words)}\n")
            done()
    transcript = home / "transcript" / "aishell_transcript_v0.8.txt"
    transcript.parent.mkdir(parents=True)
    transcript.write_text("".join(sorted(lines)), encoding="utf-8")


def write_wenet_speech(folder: Path, language: str, roles: Roles, sizes: Sizes, seed: int, done: Done) -> None:
    """Write `audio/**/<aid>.opus`, long recordings at 16 kHz, and WenetSpeech.json with their segments.

    Args:
        folder: Root of the corpus.
        language: `English` or `Chinese`.
        roles: The parts.
        sizes: Number of sentences of each part.
        seed: Seed of sentences, voices and acoustics.
        done: Called with the number of sentences written since the last call. Its default is 1.
    """
    audios, width = [], os.cpu_count() or 1
    with ThreadPoolExecutor(width) as pool:  # encoding takes most of the time, and libsndfile releases the GIL
        for role in roles:
            source = _wenet_plan(role, recordings(language, role, sizes[role.part], seed), sizes)
            while batch := list(islice(source, width)):
                for audio in pool.map(lambda item: _wenet_audio(folder, *item), batch):
                    audios.append(audio)
                    done(len(audio["segments"]))
    text = json.dumps({"audios": audios}, ensure_ascii=False, indent=1)
    (folder / "WenetSpeech.json").write_text(text, encoding="utf-8")


def _wenet_plan(
    role: Role, all_recordings: Iterator[LongRecording], sizes: Sizes
) -> Iterator[tuple[Role, int, LongRecording, list[list[str]]]]:
    """Number the recordings, and yield the subsets of each segment. M and S are spread evenly over L."""
    first = 0
    for number, recording in enumerate(all_recordings):
        indices = range(first, first + len(recording.segments))
        first = indices.stop
        yield role, number, recording, [_subsets(role.part, index, sizes) for index in indices]


def _picked(index: int, few: int, many: int) -> bool:
    """Return whether item `index` of `many` is among `few` evenly spaced ones."""
    return index * few // many != (index + 1) * few // many


def _subsets(part: str, index: int, sizes: Sizes) -> list[str]:
    """Return the subsets of one segment. S is a subset of M and M of L, each with exactly its number in `sizes`."""
    if part != "L":
        return [part]
    large, medium, small = (sizes[name] for name in ("L", "M", "S"))
    if not _picked(index, medium, large):
        return ["L"]
    return ["L", "M", "S"] if _picked(index * medium // large, small, medium) else ["L", "M"]


_WENET_FOLDERS = {"DEV": "audio/dev", "TEST_NET": "audio/test_net", "TEST_MEETING": "audio/test_meeting"}


def _wenet_audio(
    folder: Path, role: Role, number: int, recording: LongRecording, subsets: list[list[str]]
) -> dict[str, Any]:
    source = "podcast" if number % 4 == 3 else "youtube"
    initial = "M" if role.part == "TEST_MEETING" else source[0].upper()
    aid = f"{initial}{role.first_number:05d}{number:05d}_spoken{recording.speaker:05d}"
    path = f"{_WENET_FOLDERS.get(role.part, f'audio/train/{source}')}/B00000/{aid}.opus"
    write_recording(folder / path, recording.samples, format="OGG", subtype="OPUS", compression_level=_OPUS_LEVEL)
    set_serial(folder / path, zlib.crc32(aid.encode()))
    segments = [
        {"sid": f"{aid}_S{i:05d}", "confidence": 1.0, "begin_time": begin, "end_time": end,
         "subsets": subsets[i], "text": "".join(words)}
        for i, (begin, end, words) in enumerate(recording.segments)
    ]  # fmt: skip
    return {
        "aid": aid, "duration": len(recording.samples) / SAMPLE_RATE,
        "md5": hashlib.md5((folder / path).read_bytes()).hexdigest(),
        "path": path, "source": source, "tags": ["synthetic"], "url": f"https://example.org/{aid}",
        "segments": segments,
    }  # fmt: skip


WRITERS = {
    "librispeech": write_librispeech,
    "aishell": write_aishell,
    "wenet_speech": write_wenet_speech,
    "jsonl": write_jsonl,
}


def files_of(layout: str, roles: Roles) -> tuple[str, ...]:
    """Return the files and folders that a writer makes at the top of its folder.

    Args:
        layout: `librispeech`, `aishell`, `wenet_speech` or `jsonl`.
        roles: The parts.

    Returns:
        Their names.
    """
    if layout == "jsonl":
        return (*(f"{role.part}.jsonl" for role in roles), AUDIO)
    if layout == "librispeech":
        text = (TEXT,) if any(role.kind == "study" for role in roles) else ()
        return (*(role.part for role in roles), "SPEAKERS.TXT", *text)
    return ("data_aishell",) if layout == "aishell" else ("audio", "WenetSpeech.json")
