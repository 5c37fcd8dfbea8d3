"""What a distillation step waits for on several ranks, simulated from the length distributions of three corpora.

The batches are real: `arkasr.data` deals drawn clips to 1, 8 and 24 ranks. The time of each phase is modelled from
what was measured on one H200. `--measure` also runs the waits of one corpus with real processes, see `waits.py`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from operator import length_hint
from pathlib import Path
from random import Random
from zlib import crc32

import numpy as np
import waits
from corpus_lengths import CORPORA, Corpus, draw_clips, write_manifest
from step_model import MEASURED, PHASES, STARTS, Costs, Network, Total, simulate

from arkasr.config.load import load_config
from arkasr.config.schema import Config, DataConfig
from arkasr.data.bucketing import BatchLimits, Buckets, bucket_limits
from arkasr.data.dealing import NUM_CLIPS_FOR_BINS
from arkasr.data.lazy_cut import LazyCut

PAPER = Path(__file__).parents[1] / "egs/conf/paper.yaml"
PROCESSES, HELD = 8, 4000  # of `--measure`: number of processes, and of clips held by each


def dealt(clips: Sequence[LazyCut], config: DataConfig, ranks: int, whole: bool) -> Iterator[list[list[LazyCut]]]:
    """Deal clips as the training does.

    Args:
        clips: All clips, in the order of the epoch.
        config: The section `data`.
        ranks: Number of ranks.
        whole: Whether to go on when all clips are in the buckets, as at the end of an epoch.

    Yields:
        One batch per rank.
    """
    limits, stream = BatchLimits(config), iter(clips)
    bounds = bucket_limits(map(limits.length, clips[:NUM_CLIPS_FOR_BINS]), config.num_buckets)
    buckets = Buckets(stream, limits, bounds, config.buffer_clips, Random(1))
    while (group := buckets.draw(ranks)) and (whole or length_hint(stream)):
        yield group


def lengths(corpus: Corpus, number: int, config: DataConfig, spread: float, capped: float) -> list[LazyCut]:
    """Draw the clips of an epoch. `make` of each returns the tokens of its rollout.

    Args:
        corpus: The corpus.
        number: Number of clips, before those that are too short or too long are left out.
        config: The section `data`.
        spread: See `corpus_lengths.draw_clips`.
        capped: See `rollout_tokens`.

    Returns:
        The clips.
    """
    clips = []
    for seconds, units in zip(*draw_clips(corpus, number, spread, seed=0)):
        clip = LazyCut(seconds, units * len(corpus.unit.encode()), int)
        if config.min_clip_seconds <= seconds <= config.max_clip_seconds:
            clips.append(clip._replace(make=partial(float, rollout_tokens(corpus, clip, capped))))
    return clips


def rollout_tokens(corpus: Corpus, clip: LazyCut, capped: float) -> float:
    """Return the tokens of the student's transcript of a clip.

    Args:
        corpus: The corpus.
        clip: The clip.
        capped: Share of the transcripts that do not end before their cap: 2 tokens and 12 per second.
    """
    draw = crc32(f"{clip.seconds:.5f}".encode()) / 2**32  # hardly any clips have the same number of samples
    return 2 + 12 * clip.seconds if draw < capped else corpus.tokens_of(clip.text_bytes)


def results(name: str, config: Config, args: argparse.Namespace) -> Iterator[tuple[str, Total, float]]:
    """Simulate one corpus.

    Args:
        name: Name of the corpus.
        config: The configuration.
        args: The options.

    Yields:
        By what the clips of a group are alike, the sums, and the speed of a rank relative to a single rank.
    """
    corpus, network, costs = CORPORA[name], Network(args.machine, args.network), Costs(token=args.token_ms)
    clips = lengths(corpus, min(args.clips, corpus.clips), config.data, args.spread, args.capped)
    whole = len(clips) <= config.data.buffer_clips or args.clips >= corpus.clips
    for alike in ("length", "length, text"):
        known = clips if "text" in alike else [clip._replace(text_bytes=0) for clip in clips]
        alone = 0.0
        for ranks in args.ranks:
            times = network.times(ranks, config.fsdp.replicate)
            total = simulate(dealt(known, config.data, ranks, whole), ranks, costs, times)
            alone = alone or total.speed
            yield alike, total, total.speed / alone


def table(name: str, found: Sequence[tuple[str, Total, float]]) -> list[str]:
    """Format the results of one corpus.

    Args:
        name: Name of the corpus.
        found: What `results` yields.

    Returns:
        Lines.
    """
    heads = ["alike in", "ranks", "steps", "step (ms)", *PHASES, "wait: text (%)", "wait: audio (%)", "network (%)"]
    heads += ["efficiency", "audio s/s and rank", "speed against the first", "padding (%)"]
    lines = [f"\n{name}\n", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for alike, total, speed in found:
        phases = [f"{each:.0f}" for each in total.own / total.steps]
        waits = [f"{100 * each / total.time:.1f}" for each in (total.text, total.audio, total.network)]
        cells = [alike, f"{total.ranks}", f"{total.steps}", f"{total.time / total.steps:.0f}", *phases, *waits]
        cells += [f"{total.efficiency:.3f}", f"{total.speed:.0f}", f"{speed:.3f}"]
        lines.append("| " + " | ".join([*cells, f"{100 * (total.padded / total.seconds - 1):.1f}"]) + " |")
    return lines


def assumptions(config: Config, args: argparse.Namespace) -> list[str]:
    """Return lines that name what the simulation assumes."""
    data = config.data
    return [
        f"limits per batch: {data.max_seconds:g} padded s, {data.max_cuts} clips; {data.num_buckets} buckets, "
        f"{data.buffer_clips} clips held",
        f"ms per {MEASURED:g} padded s (decoding: per token): {asdict(Costs(token=args.token_ms))}",
        f"GB/s, and ms of small collectives: {asdict(Network(args.machine, args.network))}; fsdp.replicate="
        f"{config.fsdp.replicate}; the gather before the rollout is exposed, others overlap with student and backward",
        f"lengths: {min(args.clips, max(c.clips for c in CORPORA.values()))} clips at most per corpus, linear between "
        f"published quantiles, spread of the speaking rate {args.spread:g}, {args.capped:g} of the rollouts run to "
        "their cap",
        "per phase: mean over ranks; efficiency: share of the step in which a rank computes",
    ]


def parts(costs: Costs, corpus: Corpus, capped: float, batch: Sequence[LazyCut]) -> list[float]:
    """Return the times of the parts of a step between two collectives, in seconds.

    Args:
        costs: Times of the phases.
        corpus: The corpus of the clips.
        capped: See `rollout_tokens`.
        batch: The clips of one rank.
    """
    padded = len(batch) * max(clip.seconds for clip in batch)
    tokens = max(rollout_tokens(corpus, clip, capped) for clip in batch)
    work = costs.work(np.array([padded]), np.array([tokens]))
    return [float(part.sum()) / 1000 for part in np.split(work, STARTS[1:])]


def measured(name: str, config: DataConfig, steps: int, costs: Costs, capped: float) -> waits.Waits:
    """Measure the waits of real processes, which hold fewer clips than the training so that they start soon.

    Args:
        name: Name of the corpus.
        config: The section `data`.
        steps: Number of steps.
        costs: Times of the phases.
        capped: See `rollout_tokens`.

    Returns:
        The times.
    """
    corpus = CORPORA[name]
    config = replace(config, buffer_clips=min(config.buffer_clips, HELD))
    number = min(corpus.clips, config.buffer_clips + PROCESSES * config.max_cuts * steps)
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "clips.jsonl"
        write_manifest(manifest, corpus, *draw_clips(corpus, number, 1.0, seed=0))
        return waits.measure(manifest, config, PROCESSES, steps, partial(parts, costs, corpus, capped))


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--corpora", nargs="+", choices=CORPORA, default=list(CORPORA), help="corpora to simulate")
    options.add_argument("--ranks", type=int, nargs="+", default=[1, 8, 24], help="numbers of ranks")
    options.add_argument("--clips", type=int, default=150_000, help="clips drawn, at most those of the corpus")
    options.add_argument("--token_ms", type=float, default=3.15, help="time of one decoding step, ms")
    options.add_argument("--machine", type=float, default=300.0, help="bandwidth inside a machine, GB/s")
    options.add_argument("--network", type=float, default=25.0, help="bandwidth between machines, GB/s")
    options.add_argument("--spread", type=float, default=1.0, help="factor on the spread of the speaking rate")
    options.add_argument("--capped", type=float, default=0.0, help="share of rollouts that run to their cap")
    options.add_argument(
        "--measure", type=int, default=0, help=f"also run that many steps with {PROCESSES} real processes"
    )
    options.add_argument("overrides", nargs="*", help="section.key=value of egs/conf/paper.yaml")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Print one table per corpus."""
    args = parser().parse_args(argv)
    config = load_config(PAPER, "base_opd", "{expdir}", "{datadir}", args.overrides)
    print("\n".join(assumptions(config, args)))
    for name in args.corpora:
        print("\n".join(table(name, list(results(name, config, args)))), flush=True)
        if args.measure:
            print(measured(name, config.data, args.measure, Costs(token=args.token_ms), args.capped), flush=True)


if __name__ == "__main__":
    main()
