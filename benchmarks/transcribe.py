"""Compare batched transcription with a loop that calls `generate` per file, on files of mixed lengths.

    python benchmarks/transcribe.py --threads 2                                  # random weights at scale mini, noise
    python benchmarks/transcribe.py --threads 2 --model DIR --folder AUDIO       # a trained model and its test set
    python benchmarks/transcribe.py --size paper --vocab 151936 --loop_repeats 1  # the published sizes, on one GPU

- loop: per file, the processor, `generate` of transformers, and batch_decode, as pages of models show it.
- transcribe: `arkasr.transcribe` on all files, in batches of similar length.

Both read the same files, with the same weights in one process, and rounds of both alternate. --loop_repeats 0 leaves
the loop out, for many files. Random weights do not stop, so each of their transcripts ends at a cap, which
--tokens_per_second of audio sets, and counts as complete. With --model, the files are those of a folder that divide it
evenly by length.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import fresh
import soundfile
import torch
from capped import Capped, kept_weights
from measured import peak_bytes, seconds

import arkasr
from arkasr import SAMPLE_RATE, ArkasrProcessor, SpeechLM, token_caps
from arkasr.transcription.recognizer import MAX_NEW_TOKENS, Recognizer, place


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
    parser.add_argument("--loop_repeats", type=int, help="rounds of the loop, at most --repeats (default: as many)")
    parser.add_argument("--weights", type=Path, help="where random weights are kept (default: a temporary folder)")
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
    folder = args.model or kept_weights(args.size, args.vocab, args.weights or temporary, device, dtype)
    loaded = (Recognizer if args.model else Capped).load(str(folder), device=device, dtype=dtype)
    lm, caps = loaded.lm, [256] * len(paths)
    assert lm is not None
    if not args.model:
        loaded.tokens_per_second = args.tokens_per_second
        audio = [torch.zeros(round(length(path) * SAMPLE_RATE)) for path in paths]
        caps = token_caps(audio, MAX_NEW_TOKENS, args.tokens_per_second)
    processor = ArkasrProcessor.from_pretrained(folder, trust_remote_code=False)
    texts: dict[str, list[str]] = {}

    def one_by_one(rows: Sequence[int] = range(len(paths))) -> None:
        texts["loop"] = loop(lm, processor, [paths[i] for i in rows], [caps[i] for i in rows])

    def batched() -> None:
        done = arkasr.transcribe(paths, loaded, batch_seconds=args.batch_seconds)
        texts["transcribe"] = [each.text for each in done]

    rounds = {"loop": args.repeats if args.loop_repeats is None else args.loop_repeats, "transcribe": args.repeats}
    works = {name: work for name, work in (("loop", one_by_one), ("transcribe", batched)) if rounds[name]}
    longest = sorted(range(len(paths)), key=lambda i: length(paths[i]))[-8:]  # the peak of the loop is one of theirs
    warm_up = {"loop": lambda: one_by_one(longest), "transcribe": batched}
    memory = {name: peak_bytes(warm_up[name], device) for name in works}
    spent: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(args.repeats):
        for name, work in works.items():
            spent[name] += [seconds(work, device)] if turn < rounds[name] else []
    weights = sum(weight.numel() for weight in lm.parameters())
    print(f"{weights:,} weights in {dtype}, {device}, {args.threads} threads, batches of {args.batch_seconds:g} s")
    print_table(sorted(map(length, paths)), spent, memory)
    if "loop" in works:
        print_ratios(spent["loop"], spent["transcribe"])
        print(f"equal texts: {sum(map(str.__eq__, texts['loop'], texts['transcribe']))} of {len(paths)}")


def print_table(lengths: Sequence[float], spent: Mapping[str, Sequence[float]], memory: Mapping[str, int]) -> None:
    """Print one row per way.

    Args:
        lengths: Seconds of the files, in ascending order.
        spent: Seconds of the rounds of each way.
        memory: Peak memory of each way in bytes.
    """
    print(f"{len(lengths)} files of {lengths[0]:.1f} to {lengths[-1]:.1f} s, {sum(lengths):.0f} s together\n")
    print("| | median s | fastest s | RTFx | peak MiB |\n| --- | ---: | ---: | ---: | ---: |")
    for name, times in spent.items():
        print(
            f"| {name} | {statistics.median(times):.2f} | {min(times):.2f} | {sum(lengths) / min(times):.0f} | "
            f"{memory[name] / 2**20:.0f} |"
        )


def print_ratios(slow: Sequence[float], fast: Sequence[float]) -> None:
    """Print how many times faster transcription is.

    Args:
        slow: Seconds of the rounds of the loop.
        fast: Seconds of the rounds of transcription.
    """
    ratios = sorted(a / b for a, b in zip(slow, fast))
    print(f"\nloop / transcribe, median: {statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})")
    print(f"loop / transcribe, fastest rounds, which other processes disturb least: {min(slow) / min(fast):.1f}")


if __name__ == "__main__":
    main()
