"""Writers of the miniature corpora, each in the on-disk layout of the corpus it stands for."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from arkasr.corpora.synthetic.ogg import set_serial
from arkasr.corpora.synthetic.synth import ROLES, LongTake, Role, clips, recordings
from arkasr.interfaces import SAMPLE_RATE

Sizes = dict[str, int]
Count = Callable[..., None]

# 70 kbit/s: the cheapest to encode, as libopus leaves its slow speech model there.
_OPUS_LEVEL = 0.75


def _audio(path: Path, samples: np.ndarray, **options: Any) -> None:
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, SAMPLE_RATE, **options)


def write_librispeech(folder: Path, language: str, sizes: Sizes, seed: int, count: Count) -> None:
    """Write `<part>/<speaker>/<chapter>/<speaker>-<chapter>-<utterance>.flac` and a trans.txt per chapter."""
    people = []
    for role in ROLES["librispeech"]:
        lines: dict[Path, list[str]] = {}
        for take in clips(language, role, sizes[role.part], seed):
            chapter = 100000 + take.speaker
            stem = f"{take.speaker}-{chapter}"
            home = folder / role.part / str(take.speaker) / str(chapter)
            _audio(home / f"{stem}-{take.index:04d}.flac", take.samples, subtype="PCM_16")
            lines.setdefault(home / f"{stem}.trans.txt", []).append(f"{stem}-{take.index:04d} {' '.join(take.words)}\n")
            count()
        for path, rows in lines.items():
            path.write_text("".join(rows), encoding="utf-8")
            people.append(f"{path.parent.parent.name} | ? | {role.part} | synthetic\n")
    (folder / "SPEAKERS.TXT").write_text(";ID  |SEX| SUBSET | NAME\n" + "".join(people), encoding="utf-8")


def write_aishell(folder: Path, language: str, sizes: Sizes, seed: int, count: Count) -> None:
    """Write `data_aishell/wav/<part>/<Sxxxx>/BAC009<Sxxxx>W<nnnn>.wav` and the one transcript file."""
    home, lines = folder / "data_aishell", []
    for role in ROLES["aishell"]:
        for take in clips(language, role, sizes[role.part], seed):
            speaker = f"S{take.speaker:04d}"
            name = f"BAC009{speaker}W{take.index + 121:04d}"
            _audio(home / "wav" / role.part / speaker / f"{name}.wav", take.samples, subtype="PCM_16")
            lines.append(f"{name} {' '.join(take.words)}\n")
            count()
    transcript = home / "transcript" / "aishell_transcript_v0.8.txt"
    transcript.parent.mkdir(parents=True)
    transcript.write_text("".join(sorted(lines)), encoding="utf-8")


def write_wenet_speech(folder: Path, language: str, sizes: Sizes, seed: int, count: Count) -> None:
    """Write `audio/**/<aid>.opus`, long recordings at 16 kHz, and WenetSpeech.json with their segments."""
    audios, width = [], os.cpu_count() or 1
    with ThreadPoolExecutor(width) as pool:  # encoding is most of the work, and libsndfile lets go of the GIL
        for role in ROLES["wenet_speech"]:
            source = _wenet_plan(role, recordings(language, role, sizes[role.part], seed), sizes)
            while batch := list(islice(source, width)):
                for audio in pool.map(lambda item: _wenet_audio(folder, *item), batch):
                    audios.append(audio)
                    count(len(audio["segments"]))
    text = json.dumps({"audios": audios}, ensure_ascii=False, indent=1)
    (folder / "WenetSpeech.json").write_text(text, encoding="utf-8")


def _wenet_plan(role: Role, longs: Iterator[LongTake], sizes: Sizes) -> Iterator[tuple[Role, int, LongTake, list]]:
    """Number the recordings, and name the subsets of each segment: M and S are spread over L's people evenly."""
    rank = 0
    for number, long in enumerate(longs):
        ranks = range(rank, rank + len(long.segments))
        rank = ranks.stop
        yield role, number, long, [_subsets(role.part, r, sizes) for r in ranks]


def _picked(index: int, few: int, many: int) -> bool:
    """Tell whether item `index` of `many` is one of `few` that lie evenly among them."""
    return index * few // many != (index + 1) * few // many


def _subsets(part: str, rank: int, sizes: Sizes) -> list[str]:
    """Name the subsets of one segment: S lies in M and M in L, exactly as many segments as `sizes` says."""
    if part != "L":
        return [part]
    large, medium, small = (sizes[name] for name in ("L", "M", "S"))
    if not _picked(rank, medium, large):
        return ["L"]
    return ["L", "M", "S"] if _picked(rank * medium // large, small, medium) else ["L", "M"]


_WENET_HOMES = {"DEV": "audio/dev", "TEST_NET": "audio/test_net", "TEST_MEETING": "audio/test_meeting"}


def _wenet_audio(folder: Path, role: Role, number: int, long: LongTake, subsets: list[list[str]]) -> dict[str, Any]:
    source = "podcast" if number % 4 == 3 else "youtube"
    initial = "M" if role.part == "TEST_MEETING" else source[0].upper()
    aid = f"{initial}{role.first_number:05d}{number:05d}_spoken{long.speaker:05d}"
    path = f"{_WENET_HOMES.get(role.part, f'audio/train/{source}')}/B00000/{aid}.opus"
    _audio(folder / path, long.samples, format="OGG", subtype="OPUS", compression_level=_OPUS_LEVEL)
    set_serial(folder / path, zlib.crc32(aid.encode()))
    segments = [
        {"sid": f"{aid}_S{i:05d}", "confidence": 1.0, "begin_time": begin, "end_time": end,
         "subsets": subsets[i], "text": "".join(words)}
        for i, (begin, end, words) in enumerate(long.segments)
    ]  # fmt: skip
    return {
        "aid": aid, "duration": len(long.samples) / SAMPLE_RATE,
        "md5": hashlib.md5((folder / path).read_bytes()).hexdigest(),
        "path": path, "source": source, "tags": ["synthetic"], "url": f"https://example.org/{aid}",
        "segments": segments,
    }  # fmt: skip


WRITERS = {"librispeech": write_librispeech, "aishell": write_aishell, "wenet_speech": write_wenet_speech}
# What a writer leaves at the top of its folder.
FILES = {
    "librispeech": (*(role.part for role in ROLES["librispeech"]), "SPEAKERS.TXT"),
    "aishell": ("data_aishell",),
    "wenet_speech": ("audio", "WenetSpeech.json"),
}
