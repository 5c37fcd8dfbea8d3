"""Inject faults into real `arkasr train` processes with a tiny model: `python tests/faults/faults.py --help`.

Writes faults.md and faults.json to --out. For each fault they list the steps lost, whether the final weights are
bitwise equal to those of the undisturbed run, and the seconds until the run ended and resumed. The exit status is 1 if
a fault had an unexpected outcome.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "helpers"), str(HERE.parents[1])]

import directories  # noqa: E402
import disks  # noqa: E402
import kills  # noqa: E402
import stops  # noqa: E402
from corpus_fixture import CONF, write_corpus  # noqa: E402
from fault_bench import Bench  # noqa: E402

ALONE = {
    "kill -9": kills.killed,
    "kill -9 in final/": kills.killed_in_final,
    "kill -9 of a loader process": kills.killed_loader,
    "disk full in a save": disks.full_in_save,
    "disk full for metrics": disks.full_for_metrics,
    "disk full for final/": disks.full_for_final,
    "newest checkpoint truncated": directories.truncated,
    "newest checkpoint without COMPLETE": directories.unmarked,
    "one bit of the newest checkpoint flipped": directories.flipped_bit,
    "newest checkpoint without a rank's rng": directories.without_generators,
    "checkpoint of another model": directories.of_another_model,
    "two runs in one directory": directories.twice,
    "other settings": directories.other_settings,
    "SIGTERM, SIGUSR1": stops.stopped,
    "Ctrl-C": stops.interrupted,
}
RANKS = ALONE | {"kill -9": kills.killed_rank, "kill -9 of torchrun": kills.killed_launcher}
del RANKS["SIGTERM, SIGUSR1"]  # torchrun ends its ranks at SIGTERM and dies of SIGUSR1, so the recipe signals the ranks
HEAD = (
    "fault",
    "ranks",
    "moments",
    "during",
    "steps lost (max)",
    "equal",
    "to end (s)",
    "to resume (s)",
    "status",
    "as expected",
)


def cells(row: dict) -> list[str]:
    """Return the cells of one row of the table."""
    during = ", ".join(f"{count} in {name}" for name, count in row.get("during", {}).items())
    verdict = f"skipped: {row['skipped']}" if "skipped" in row else "yes" if row["ok"] else "NO"
    equal = {True: "yes", False: "NO", None: "-"}[row.get("equal")]
    seconds = [f"{row[name]:.1f}" if name in row else "-" for name in ("end_seconds", "resume_seconds")]
    lost, status = (str(row.get(name, "-")) for name in ("lost_max", "status"))
    return [
        row["fault"],
        str(row["ranks"]),
        str(row.get("moments", 0)),
        during or "-",
        lost,
        equal,
        *seconds,
        status,
        verdict,
    ]


def table(rows: list[dict]) -> str:
    """Return the rows as a Markdown table."""
    lines = [HEAD, ["---"] * len(HEAD), *(cells(row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def run_faults(bench: Bench, names: list[str]) -> list[dict]:
    """Run the faults whose names contain one of `names` (all if empty), and return their rows."""
    bench.undisturbed()
    print(f"undisturbed, {bench.ranks} rank(s): {bench.seconds:.1f} s, {bench.digest[:12]}", flush=True)
    rows = []
    for name, fault in (ALONE if bench.ranks == 1 else RANKS).items():
        if not names or any(word in name for word in names):
            start = time.monotonic()
            rows.append({"fault": name, "ranks": bench.ranks, **fault(bench), "seconds": time.monotonic() - start})
            print(" | ".join(cells(rows[-1])), rows[-1].get("note", ""), flush=True)
    return rows


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="output folder, empty or not existing")
    parser.add_argument("--moments", type=int, default=20, help="number of random moments for kill -9 (default: 20)")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2], help="numbers of processes (default: 1 2)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random moments (default: 1)")
    parser.add_argument("--only", nargs="+", default=[], help="parts of names of faults, such as 'disk full'")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    conf, datadir = args.out / "tiny.yaml", write_corpus(args.out / "data")
    conf.write_text(CONF)
    rows = []
    for ranks in args.ranks:
        bench = Bench(conf, datadir, args.out, ranks, args.moments, args.seed)
        rows += run_faults(bench, args.only)
        (args.out / "faults.json").write_text(json.dumps(rows, indent=1))
        (args.out / "faults.md").write_text(table(rows))
    print(table(rows))
    return 0 if all(row.get("ok", True) for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
