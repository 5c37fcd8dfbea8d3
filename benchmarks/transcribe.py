"""Compare batched transcription with a loop that calls `generate` per file, on files of mixed lengths.

    python benchmarks/transcribe.py --threads 2                                  # random weights at scale mini, noise
    python benchmarks/transcribe.py --threads 2 --model DIR --folder AUDIO       # a trained model and its test set

- loop: per file, the processor, `generate` of transformers, and batch_decode, as pages of models show it.
- transcribe: `arkasr.transcribe` on all files, in batches of similar length.

Both read the same files, with the same weights in one process, and rounds of both alternate. Random weights do not
stop, so each of their transcripts ends at a cap, which --tokens_per_second of audio sets, and counts as complete. With
--model, the files are those of a folder that divide it evenly by length.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import fresh
import soundfile
import torch
from measured import peak_bytes, seconds
from torch import Tensor

import arkasr
from arkasr import SAMPLE_RATE, ArkasrProcessor, SpeechLM, Transcript, token_caps
from arkasr.transcription.recognizer import MAX_NEW_TOKENS, Recognizer, place


class Complete(Recognizer):
    """A recogniser whose texts count as complete at their cap, so that none is decoded again."""

    def transcribe(
        self, waveforms: Sequence[Tensor], languages: Sequence[str], hotwords: Sequence[str] = (), weight: float = 0.0
    ) -> list[Transcript]:
        """See `Recognizer`."""
        return [Transcript(str(text), True, False) for text in super().transcribe(waveforms, languages)]


def noise(folder: Path, count: int, shortest: float, longest: float) -> list[Path]:
    """Write clips of noise whose lengths are uniform between two limits.

    Args:
        folder: Where they are written.
        count: Number of clips.
        shortest: Seconds.
        longest: Seconds.

    Returns:
        The files.
    """
    lengths, paths = random.Random(0), [folder / f"{i:03d}.wav" for i in range(count)]
    for path in paths:
        (clip,) = fresh.clips(1, lengths.uniform(shortest, longest))
        soundfile.write(path, clip.numpy(), SAMPLE_RATE)
    return paths


def of_folder(folder: Path, count: int) -> list[Path]:
    """Choose files that divide a folder evenly by length, in random order.

    Args:
        folder: A folder with files of 16 kHz and one channel.
        count: Number of files.

    Returns:
        The files.
    """
    found = sorted((p for p in folder.rglob("*") if p.suffix in (".wav", ".flac")), key=lambda p: length(p))
    chosen = [found[i * len(found) // count] for i in range(count)]
    random.Random(0).shuffle(chosen)
    return chosen


def length(path: Path) -> float:
    """Return the seconds of a file."""
    return soundfile.info(path).duration


def loop(lm: SpeechLM, processor: ArkasrProcessor, paths: Sequence[Path], caps: Sequence[int]) -> list[str]:
    """Transcribe files one by one by `generate`.

    Args:
        lm: The model.
        processor: Its processor.
        paths: N files.
        caps: N token caps.

    Returns:
        N texts.
    """
    texts, blocked = [], lm.suppressed_ids
    for path, cap in zip(paths, caps, strict=True):
        inputs = processor.apply_transcription_request([str(path)]).to(lm.device, lm.hf.dtype)
        with torch.no_grad():
            ids = lm.hf.generate(**inputs, do_sample=False, max_new_tokens=cap, suppress_tokens=blocked)
        texts += processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in texts]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure both and print the table.

    Args:
        argv: Command-line options. Default: those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="folder of a trained Ark-ASR; default: random weights")
    parser.add_argument("--folder", type=Path, help="audio for --model")
    parser.add_argument("--size", choices=list(fresh.STUDENTS), default="mini", help="sizes of random weights")
    parser.add_argument("--vocab", type=int, default=473, help="tokens of random weights (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=64, help="number of files (default: %(default)s)")
    parser.add_argument("--shortest", type=float, default=1.0, help="seconds of noise (default: %(default)s)")
    parser.add_argument("--longest", type=float, default=8.0, help="seconds of noise (default: %(default)s)")
    parser.add_argument("--tokens_per_second", type=float, default=4.0, help="of noise (default: %(default)s)")
    parser.add_argument("--batch_seconds", type=float, default=240.0, help="see arkasr transcribe")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    device, dtype = place()
    with tempfile.TemporaryDirectory() as temporary:
        measure(args, Path(temporary), device, dtype)


def measure(args: argparse.Namespace, temporary: Path, device: str, dtype: str) -> None:
    """Run rounds of both in turn.

    Args:
        args: The options.
        temporary: An empty folder.
        device: Where the model is placed.
        dtype: Name of the weights' torch dtype.
    """
    if args.model:
        paths = of_folder(args.folder, args.clips)
    else:
        paths = noise(temporary, args.clips, args.shortest, args.longest)
        fresh.student(args.size, fresh.tokenizer(args.vocab), "cpu", "float32").save(temporary / "model")
    kind = Recognizer if args.model else Complete
    loaded = kind.load(args.model or str(temporary / "model"), device=device, dtype=dtype)
    lm = loaded.lm
    assert lm is not None
    audio = [torch.zeros(round(length(path) * SAMPLE_RATE)) for path in paths]
    caps = [256] * len(paths)
    if not args.model:
        lm.blocked[lm.stop_ids] = True  # no transcript ends before its cap
        loaded.tokens_per_second = args.tokens_per_second
        caps = token_caps(audio, MAX_NEW_TOKENS, args.tokens_per_second)
    processor = ArkasrProcessor.from_pretrained(args.model or temporary / "model", trust_remote_code=False)
    texts: dict[str, list[str]] = {}

    def one_by_one() -> None:
        texts["loop"] = loop(lm, processor, paths, caps)

    def batched() -> None:
        done = arkasr.transcribe(paths, loaded, batch_seconds=args.batch_seconds)
        texts["transcribe"] = [each.text for each in done]

    memory = {"loop": peak_bytes(one_by_one, device), "transcribe": peak_bytes(batched, device)}
    rounds = [(seconds(one_by_one, device), seconds(batched, device)) for _ in range(args.repeats)]
    lengths = sorted(map(length, paths))
    total, weights = sum(lengths), sum(weight.numel() for weight in lm.parameters())
    print(f"{weights:,} weights in {dtype}, {device}, {args.threads} threads")
    print(f"{len(paths)} files of {lengths[0]:.1f} to {lengths[-1]:.1f} s\n")
    print("| | median s | fastest s | RTFx | peak MiB |\n| --- | ---: | ---: | ---: | ---: |")
    columns = dict(zip(("loop", "transcribe"), zip(*rounds)))
    for name, spent in columns.items():
        print(
            f"| {name} | {statistics.median(spent):.2f} | {min(spent):.2f} | {total / min(spent):.0f} | "
            f"{memory[name] / 2**20:.0f} |"
        )
    ratios = sorted(slow / fast for slow, fast in rounds)
    fastest = min(columns["loop"]) / min(columns["transcribe"])
    same = sum(a == b for a, b in zip(texts["loop"], texts["transcribe"]))
    print(f"\nloop / transcribe, median: {statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})")
    print(f"loop / transcribe, fastest rounds, which other processes disturb least: {fastest:.1f}")
    print(f"equal texts: {same} of {len(paths)}")


if __name__ == "__main__":
    main()
