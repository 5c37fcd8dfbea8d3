"""kill -9 at random moments: of the process, one rank, torchrun, or a data loader process."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from attempts import Attempt, Run, wait_for
from fault_bench import Bench

KILLS_PER_RUN = 5


@dataclass
class Kill:
    """One kill and its consequences."""

    victim: str
    during: str  # state of the run at that moment
    reached: int  # last step in metrics.jsonl
    saved: int  # step of the newest complete checkpoint
    lost: int = 0  # steps that the next start had to repeat
    ended: float = 0.0  # seconds until no process of the attempt was alive
    resumed: float = 0.0  # seconds from the start until it passed the previous attempt, 0 if it never did


MOMENTS = ("step", "save", "save", "step", "start")


def killed(bench: Bench, victims: tuple[str, ...] = ("process",), moments: tuple[str, ...] = MOMENTS) -> dict[str, Any]:
    """Kill the run at random moments, several times per directory, and start the same command again at once."""
    kills: list[Kill] = []
    equal = ok = True
    note = ""
    while len(kills) < bench.moments:
        run, own = bench.run(save_every=bench.random.choice([1, 1, 4])), []
        for target in sorted(
            bench.random.sample(range(1, bench.steps - 1), min(KILLS_PER_RUN, bench.moments - len(kills)))
        ):
            moment = moments[(len(kills) + len(own)) % len(moments)]
            if kill := _kill_once(bench, run, target, victims, moment):
                own.append(kill)
        end = bench.to_the_end(run)
        _judge(run, own)
        kills += own
        print(*own, f"equal: {end['equal']}", sep="\n", flush=True)
        equal, ok, note = equal and end["equal"], ok and end["ok"], note or end["note"]
    found = {during: sum(k.during == during for k in kills) for during in sorted({k.during for k in kills})}
    return {
        "moments": len(kills),
        "during": found,
        "lost_max": max(k.lost for k in kills),
        "end_seconds": max(k.ended for k in kills),
        "resume_seconds": max(k.resumed for k in kills),
        "equal": equal,
        "ok": ok and all(k.lost == k.reached - k.saved for k in kills),
        "kills": [vars(k) for k in kills],
        "note": note,
    }


def _kill_once(bench: Bench, run: Run, target: int, victims: tuple[str, ...], moment: str) -> Kill | None:
    """Start the run and kill it. Return None if it was finished before the kill."""
    attempt, before, resumed = run.start(), run.step(), 0.0
    if moment == "start":
        time.sleep(bench.random.uniform(0.0, 0.5 * bench.seconds))
    else:
        wait_for(lambda: run.step() > before or not attempt.running())
        resumed = time.monotonic() - attempt.started
        wait_for(lambda: run.step() >= target or not attempt.running())
        if moment == "save":
            wait_for(lambda: run.saving() or not attempt.running(), pause=0.0)
        else:
            time.sleep(bench.random.uniform(0.0, 0.3))
    victim = bench.random.choice(victims)
    if not attempt.running():
        return None
    _kill(attempt, victim)
    killed_at = time.monotonic()
    if attempt.wait() == 0:
        return None
    if victim == "torchrun":  # its ranks receive SIGTERM from the kernel
        attempt.gone()
    during = "a save" if run.saving() else "final" if list(run.folder.glob("writing-final")) else "a step"
    during = "the start" if run.step() <= before else during
    return Kill(victim, during, run.step(), run.saved(), 0, time.monotonic() - killed_at, resumed)


def _kill(attempt: Attempt, victim: str) -> None:
    ranks = attempt.ranks()
    pid = attempt.process.pid if victim in ("process", "torchrun") else ranks.get(int(victim[-1]), attempt.process.pid)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _judge(run: Run, kills: list[Kill]) -> None:
    """Read from the logs where the run resumed after each kill, by the next start that was not killed before that."""
    for number, kill in enumerate(kills, 1):
        later = (each.resumed_from() for each in run.attempts[number:])
        kill.lost = kill.reached - next((step for step in later if step), 0) * (kill.saved > 0)


def killed_rank(bench: Bench) -> dict[str, Any]:
    """kill -9 of one rank at random moments."""
    return killed(bench, tuple(f"rank {rank}" for rank in range(bench.ranks)))


def killed_launcher(bench: Bench) -> dict[str, Any]:
    """kill -9 of torchrun alone: its ranks must end and release the directory."""
    return killed(replace(bench, moments=2, num_runs=bench.num_runs + 500), ("torchrun",), ("step",))


def killed_in_final(bench: Bench) -> dict[str, Any]:
    """kill -9 while the final weights are written."""
    run = bench.run(save_every=7)
    attempt = run.start()
    wait_for(lambda: (run.folder / "writing-final").exists() or not attempt.running(), pause=0.0)
    _kill(attempt, "rank 0" if bench.ranks > 1 else "process")
    attempt.wait()
    hit, reached = (run.folder / "writing-final").exists(), run.step()
    end = bench.to_the_end(run)
    return end | {"moments": 1, "during": {"final": int(hit)}, "lost_max": reached - run.attempts[1].resumed_from()}


def killed_loader(bench: Bench) -> dict[str, Any]:
    """kill -9 of a data loader process: the run ends, and the same command resumes it."""
    run = bench.run(save_every=4)
    attempt = run.start()
    wait_for(lambda: run.step() >= 10)
    wait_for(lambda: bool(attempt.loaders()))
    with suppress(ProcessLookupError):
        os.kill(bench.random.choice(attempt.loaders()), signal.SIGKILL)
    killed_at = time.monotonic()
    status, took = attempt.wait(), time.monotonic() - killed_at
    reached, printed = run.step(), attempt.text()
    end = bench.to_the_end(run)
    found = re.search(r".*loader.*", printed)
    lost = reached - run.attempts[1].resumed_from()
    return end | {
        "moments": 1,
        "lost_max": lost,
        "end_seconds": took,
        "status": status,
        "message": found[0] if found else "",
    }
