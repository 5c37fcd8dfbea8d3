"""Run the recipe's stage 3 on simulated hosts (network namespaces), disturb it, resume it, and write a summary.

python tests/cluster/cluster.py --hosts 3 --ranks 8 --out DIR
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "helpers")]

import calm  # noqa: E402
import corpus_fixture  # noqa: E402
import harm  # noqa: E402
from bench import Bench, Row  # noqa: E402
from hosts import Hosts, why_not  # noqa: E402

from arkasr.training.train import train  # noqa: E402

# A distillation run under a name that makes the recipe add no other runs.
OPD_RUN = '  opd: {objective: opd, model: {path: "{expdir}/base/final"}}\n'
SCENARIOS = {
    each.__name__: each
    for each in (
        *(calm.undisturbed, calm.one_process, calm.repeated, calm.rank_slow, calm.fewer),
        *(harm.rank_killed, harm.rank_restarted, harm.last_host_lost, harm.first_host_lost),
        *(harm.agent_killed, harm.rank_stopped),
    )
}
COLUMNS = (
    "scenario",
    "ok",
    "did",
    "ended_after",
    "statuses",
    "at_step",
    "resumed_from",
    "repeated",
    "same",
    "seconds",
    "note",
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=8, help="processes per host")
    parser.add_argument("--run", choices=("base", "opd"), default="opd", help="supervised training, or distillation")
    parser.add_argument("--only", default="", help="scenarios, separated by commas (undisturbed always runs first)")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--save_every", type=int, default=4)
    parser.add_argument("--hang_seconds", type=float, default=40.0)
    parser.add_argument("--seed", type=int, default=1, help="seed that selects the ranks to harm")
    parser.add_argument("--out", type=Path, required=True, help="folder for logs, runs and the summary, must not exist")
    return parser.parse_args()


def prepare(args: argparse.Namespace) -> tuple[Path, Path, Path]:
    """Write a corpus with one clip per rank and step, a configuration, and the models that distillation starts from."""
    clips = args.hosts * args.ranks * args.steps
    corpus_fixture.SIZES["train"] = 2 * clips
    datadir, conf, start = args.out / "data", args.out / "tiny.yaml", args.out / "start"
    corpus_fixture.write_corpus(datadir)
    conf.write_text(corpus_fixture.CONF + OPD_RUN)
    start.mkdir()
    for run in ("teacher", "base") if args.run == "opd" else ():
        train(str(conf), run, str(start), str(datadir), ["train.steps=20", "train.save_every=20", "train.eval_every=0"])
    return datadir, conf, start


def main() -> int:
    args = arguments()
    if reason := why_not():
        print(f"cluster.py: {reason}", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # so that the hosts are taken down
    args.out = args.out.resolve()
    args.out.mkdir(parents=True)
    datadir, conf, start = prepare(args)
    settings = (args.run, conf, datadir, args.out, start, sys.executable, args.steps, args.save_every)
    rows: list[Row] = []
    with Hosts(args.hosts) as hosts:
        bench = Bench(hosts, args.ranks, *settings, args.hang_seconds, args.seed)
        chosen = args.only.split(",") if args.only else list(SCENARIOS)
        for name in dict.fromkeys(["undisturbed", *chosen]):
            rows.append(attempt(bench, name))
            summarize(args.out, rows)
    print((args.out / "summary.md").read_text())
    return 0 if all(row["ok"] for row in rows) else 1


def attempt(bench: Bench, name: str) -> Row:
    """Run one scenario. An error in it becomes its row of the summary."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    try:
        return SCENARIOS[name](bench)
    except (RuntimeError, KeyError, ValueError, IndexError) as error:
        return {"scenario": name, "ok": False, "note": f"{type(error).__name__}: {error}"}
    finally:
        for host in range(bench.hosts.count):
            bench.hosts.kill(host)
            bench.hosts.plug(host)
        if (bench.out / name / "exp").is_dir():
            shutil.rmtree(bench.out / name / "exp" / bench.run / "checkpoints", ignore_errors=True)


def summarize(out: Path, rows: list[Row]) -> None:
    (out / "summary.json").write_text(json.dumps(rows, indent=1))
    shown = [[_cell(row.get(name, "")) for name in COLUMNS] for row in rows]
    table = [list(COLUMNS), ["---"] * len(COLUMNS), *shown]
    (out / "summary.md").write_text("".join(f"| {' | '.join(cells)} |\n" for cells in table))


def _cell(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
