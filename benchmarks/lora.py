"""LoRA against full fine-tuning: error rate, peak memory, time and size of checkpoints of the same distillation run.

It needs an experiment with a trained `teacher` and `base`, such as that of `egs/librispeech/run.sh`. Each way trains in
a process of its own, then its final model is decoded and scored. On a CPU the peak is that of the resident set.

    python benchmarks/lora.py --conf egs/librispeech/conf/mini.yaml --expdir egs/librispeech/exp/mini \
        --datadir egs/librispeech/data/mini --outdir lora-comparison
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RUN = "base_opd"


def ways(ranks: Sequence[int], rate: float) -> dict[str, list[str]]:
    """Return the overrides of each way of training.

    Args:
        ranks: Ranks of LoRA.
        rate: Learning rate of LoRA. The others have that of the configuration.

    Returns:
        Words for the command line, by name.
    """
    found = {"full": [], "full, frozen encoder": ["model.freeze=[encoder]"]}
    for rank in ranks:
        lora = [f"model.lora.rank={rank}", f"model.lora.alpha={2 * rank}", f"optim.lr={rate}"]
        found[f"LoRA {rank}, decoder"] = lora
        found[f"LoRA {rank}, encoder too"] = [*lora, "model.lora.encoder=true"]
    return found


def measure(args: argparse.Namespace, name: str, words: Sequence[str], seed: int) -> dict[str, Any]:
    """Train, decode and score one way.

    Args:
        args: The command line.
        name: Name of the way.
        words: Its overrides.
        seed: Seed of the run.

    Returns:
        Error rates in percent by test set, `seconds` per step, `peak` in GiB and `checkpoint` in MiB.
    """
    expdir = Path(args.outdir) / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    folders = ["--expdir", str(expdir), "--datadir", args.datadir]
    start = [f"model.path={args.expdir}/base/final", f"teacher.options.path={args.expdir}/teacher/final"]
    _arkasr("train", args.conf, "--run", RUN, *folders, *start, f"seed={seed}", *words, *args.overrides)
    _arkasr("decode", *folders, "--runs", RUN)
    _arkasr("score", *folders, "--runs", RUN)
    rows = [json.loads(line) for line in (expdir / RUN / "metrics.jsonl").read_text().splitlines()]
    newest = max((expdir / RUN / "checkpoints").glob("step-*"))
    return {
        **rates(expdir / RUN),
        "seconds": statistics.median(row["time/step"] for row in rows),
        "peak": max(row["memory/peak_gib"] for row in rows),
        "checkpoint": sum(path.stat().st_size for path in (newest / "weights").rglob("*")) / 2**20,
    }


def rates(run: Path) -> dict[str, float]:
    """Read the error rates of a scored run.

    Args:
        run: The run's folder.

    Returns:
        Percent by test set.
    """
    sets = json.loads((run / "scores.json").read_text())["sets"]
    return {name: summary["rate_percent"] for name, summary in sets.items()}


def _arkasr(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "arkasr", *words], check=True, stdout=sys.stderr)


def main(argv: Sequence[str] | None = None) -> None:
    """Print one row per way, with means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("conf", "expdir", "datadir", "outdir"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--lora_lr", type=float, default=3e-3, help="learning rate of LoRA (default: 3e-3)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2])
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    args = parser.parse_args(argv)
    args.expdir = str(Path(args.expdir).resolve())
    table = []
    for name, words in ways(args.ranks, args.lora_lr).items():
        found = [measure(args, name, words, seed) for seed in args.seeds]
        table.append((name, {key: statistics.mean(row[key] for row in found) for key in found[0]}))
    base = Path(args.expdir) / "base"
    before = rates(base) if (base / "scores.json").is_file() else {}
    sets = [key for key in table[0][1] if key not in ("seconds", "peak", "checkpoint")]
    print(f"| training | {' | '.join(f'{name} %' for name in sets)} | s per step | peak GiB | checkpoint MiB |")
    print("|---|" + "---:|" * (len(sets) + 3))
    print(
        "| base, before | " + " | ".join(f"{before[name]:.2f}" if name in before else "-" for name in sets) + " | | | |"
    )
    for name, row in table:
        cells = [f"{row[key]:.2f}" for key in sets]
        print(f"| {name} | {' | '.join(cells)} | {row['seconds']:.3f} | {row['peak']:.2f} | {row['checkpoint']:.1f} |")


if __name__ == "__main__":
    main()
