"""Compare the error rate of one long recording with that of the clips that it is made of, and measure its peak memory.

    python benchmarks/long_audio.py --model exp/base/final --cuts data/test-clean.jsonl.gz
    python benchmarks/long_audio.py --model exp/base_opd/final --cuts data/test-clean.jsonl.gz --aligner exp/base/final
    python benchmarks/long_audio.py --teacher whisper:openai/whisper-tiny.en --cuts data/test-clean.jsonl.gz

Clips are taken in random order until they last --minutes. Each is transcribed alone. Then they are written to one file,
with and without silence between them, which `arkasr transcribe` reads at once, for each --segmentation. The file of
--short_minutes has the first of the same clips: its peak memory is the baseline. With --aligner, words get times, and
each is compared with the place of its clip. The exit status is 1 if a rate is more than one point above that of the
clips.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import soundfile
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from measured import peak_bytes, seconds

from arkasr.data.audio import read_waveform
from arkasr.interfaces import SAMPLE_RATE
from arkasr.scoring.alignment import align
from arkasr.scoring.profiles import find_profile
from arkasr.transcription.engine import transcribe_all
from arkasr.transcription.recognizer import Recognizer
from arkasr.transcription.results import Failed, Transcription
from arkasr.transcription.settings import Settings
from arkasr.transcription.sources import find_sources

PROFILE = find_profile("unicode")
HEAD = """\
| silence between clips, s | segmentation | segments | errors, % | above clips | RTFx | peak MiB | peak MiB, short |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"""
HISS = 1e-4  # standard deviation of the noise between clips, as microphones have


@dataclass(frozen=True)
class Clip:
    """A clip and its place in the long recording, in seconds."""

    cut: Cut
    start: float
    end: float

    @property
    def text(self) -> str:
        """The normalised reference."""
        return PROFILE.normalize(self.cut.supervisions[0].text, self.language)

    @property
    def language(self) -> str:
        """English name of the language."""
        return self.cut.supervisions[0].language or "English"


def chosen(cuts: str, minutes: float, seed: int) -> list[Cut]:
    """Draw clips until they last some minutes."""
    found, total = [], 0.0
    pool = list(CutSet.from_file(cuts))
    random.Random(seed).shuffle(pool)
    for cut in pool:
        if total < 60 * minutes:
            found.append(cut)
            total += cut.duration
    if total < 60 * minutes:
        print(f"{cuts}: holds {total / 60:.1f} minutes only", file=sys.stderr)
    return found


def write(path: Path, cuts: Sequence[Cut], pause: tuple[float, float], seed: int) -> list[Clip]:
    """Write clips and silence of random lengths to one file. Return their places."""
    draw, noise, clips = random.Random(seed), torch.Generator().manual_seed(seed), []
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, subtype="PCM_16") as file:
        for cut in cuts:
            start = file.tell() / SAMPLE_RATE
            file.write(read_waveform(cut).numpy())
            clips.append(Clip(cut, start, file.tell() / SAMPLE_RATE))
            silence = round(draw.uniform(*pause) * SAMPLE_RATE)
            file.write((HISS * torch.randn(silence, generator=noise)).numpy())
    return clips


def errors_of_clips(recognizer: Recognizer, clips: Sequence[Clip], settings: Settings) -> tuple[int, int]:
    """Transcribe clips one by one. Return the numbers of errors and of reference words."""
    errors = words = 0
    for batch in _batches(clips):
        texts = recognizer.transcribe([read_waveform(clip.cut) for clip in batch], [clip.language for clip in batch])
        hypotheses = PROFILE.normalize_all(texts, settings.language)
        tally = PROFILE.count([clip.text for clip in batch], hypotheses, settings.language)
        errors, words = errors + int(tally.errors.sum()), words + int(tally.lengths.sum())
    return errors, words


def _batches(clips: Sequence[Clip], size: int = 16) -> Iterator[Sequence[Clip]]:
    ordered = sorted(clips, key=lambda clip: clip.end - clip.start)
    for first in range(0, len(ordered), size):
        yield ordered[first : first + size]


def transcribed(recognizer: Recognizer, path: Path, settings: Settings) -> Transcription:
    """Transcribe the file."""
    (result,) = transcribe_all(recognizer, find_sources([str(path)]), settings)
    if isinstance(result, Failed):
        raise RuntimeError(f"{path}: {result.reason}")
    return result


def errors_of(result: Transcription, clips: Sequence[Clip], settings: Settings) -> int:
    """Count the errors of the whole text."""
    reference = " ".join(clip.text for clip in clips)
    hypothesis = PROFILE.normalize(result.text, settings.language)
    return int(PROFILE.count([reference], [hypothesis], settings.language).errors.sum())


def word_places(result: Transcription, clips: Sequence[Clip], settings: Settings) -> str:
    """Compare the times of right words with the places of their clips."""
    metric = PROFILE.metric(settings.language)
    found = [(word, text) for s in result.segments for word in s.words for text in _units(word.text, settings)]
    expected = [(clip, text) for clip in clips for text in _units(clip.text, settings)]
    edits = align(" ".join(t for _, t in expected), " ".join(t for _, t in found), metric)
    i = j = 0
    outside, starts, ends = [], [], []
    for edit in edits:
        if edit.kind == "equal":
            clip, word = expected[i][0], found[j][0]
            outside.append(max(clip.start - word.start, word.end - clip.end, 0.0))
            if i == 0 or expected[i - 1][0] is not clip:
                starts.append(word.start - clip.start)
            if i + 1 == len(expected) or expected[i + 1][0] is not clip:
                ends.append(clip.end - word.end)
        i, j = i + (edit.kind != "insert"), j + (edit.kind != "delete")
    if not outside:
        return "no word is right"
    inside = sum(distance <= 0.1 for distance in outside) / len(outside)
    return (
        f"{len(outside)} right words: {100 * inside:.1f} % lie in their clip (0.1 s allowed), the mean distance "
        f"from it is {statistics.mean(outside):.3f} s; first words begin {statistics.mean(starts):.3f} s after their "
        f"clip does, last words end {statistics.mean(ends):.3f} s before"
    )


def _units(text: str, settings: Settings) -> list[str]:
    return PROFILE.normalize(text, settings.language).split()


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", help="folder or Hub id of a model of arkasr")
    model.add_argument("--teacher", default="", help="teacher plugin, such as whisper:openai/whisper-tiny.en")
    parser.add_argument("--cuts", required=True, help="Lhotse manifest of clips with references")
    parser.add_argument("--minutes", type=float, default=30.0, help="of the long recording (default: %(default)s)")
    parser.add_argument("--short_minutes", type=float, default=3.0, help="of the baseline (default: %(default)s)")
    parser.add_argument(
        "--pauses",
        nargs="+",
        default=["0-0", "0.3-1.5"],
        help="seconds of silence between clips, as LEAST-MOST (default: %(default)s)",
    )
    parser.add_argument("--segmentation", nargs="+", default=["pauses", "fixed"], choices=["pauses", "fixed"])
    parser.add_argument("--window_seconds", type=float, default=Settings.window_seconds)
    parser.add_argument("--aligner", default="", help="folder of a model with a CTC head: words get times")
    parser.add_argument("--language", default="English")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    return parser.parse_args(argv)


def measured(recognizer: Recognizer, path: Path, settings: Settings) -> tuple[Transcription, float, float]:
    """Transcribe the file. Return the result, the peak memory in MiB, and the seconds that it took."""
    results: list[Transcription] = []
    spent: list[float] = []
    peak = peak_bytes(
        lambda: spent.append(seconds(lambda: results.append(transcribed(recognizer, path, settings)), "cpu")), "cpu"
    )
    return results[0], peak / 2**20, spent[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all settings and print the table.

    Args:
        argv: Command-line options. Default: those of the process.

    Returns:
        Exit status.
    """
    args = arguments(argv)
    torch.set_num_threads(args.threads)
    recognizer = Recognizer.load(args.model, args.teacher)
    base = Settings(args.language, window_seconds=args.window_seconds, word_times=bool(args.aligner))
    base = replace(base, aligner=args.aligner)
    cuts, few = chosen(args.cuts, args.minutes, args.seed), chosen(args.cuts, args.short_minutes, args.seed)
    with tempfile.TemporaryDirectory() as folder:
        long, short = Path(folder) / "long.wav", Path(folder) / "short.wav"
        errors, words = errors_of_clips(recognizer, write(long, cuts, (0.0, 0.0), args.seed), base)
        own = 100 * errors / words
        print(f"{len(cuts)} clips, {words} words: {own:.2f} % errors if each is transcribed alone\n\n{HEAD}")
        highest, notes = own, []
        for pause in args.pauses:
            between = tuple(float(part) for part in pause.split("-"))
            write(short, few, between, args.seed)
            clips = write(long, cuts, between, args.seed)
            for way in args.segmentation:
                settings = replace(base, segmentation=way)
                transcribed(recognizer, short, settings)  # loads code
                less = measured(recognizer, short, settings)[1]
                result, more, spent = measured(recognizer, long, settings)
                rate = 100 * errors_of(result, clips, settings) / words
                cells = [pause, way, str(len(result.segments)), f"{rate:.2f}", f"{rate - own:+.2f}"]
                cells += [f"{result.seconds / spent:.0f}", f"{more:.0f}", f"{less:.0f}"]
                print("| " + " | ".join(cells) + " |", flush=True)
                highest = max(highest, rate)
                notes += [f"{pause}, {way}: {note}" for note in result.notes]
                if args.aligner:
                    notes.append(f"{pause}, {way}: {word_places(result, clips, settings)}")
    print("", *notes, sep="\n")
    return int(highest > own + 1)


if __name__ == "__main__":
    sys.exit(main())
