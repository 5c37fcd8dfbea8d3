"""The run is asked to stop, by the signals of a scheduler or by Ctrl-C."""

from __future__ import annotations

import signal
import time
from typing import Any

from attempts import Attempt, Run, wait_for
from fault_bench import Bench

WAYS = ("step", "save", "dev", "twice", "group", "group")  # group: to all processes, as schedulers do


def stopped(bench: Bench) -> dict[str, Any]:
    """SIGTERM or SIGUSR1 during steps, saves or evaluations, twice, and to all processes of the run."""
    run = bench.run(save_every=4)
    stops = [ask(run, how, [signal.SIGTERM, signal.SIGUSR1][at % 2]) for at, how in enumerate(WAYS)]
    end = bench.to_the_end(run)
    return end | _summary(stops) | {"ok": end["ok"] and not any(stop["status"] or stop["lost"] for stop in stops)}


def ask(run: Run, how: str, number: signal.Signals) -> dict[str, Any]:
    """Start the run, send a signal in one of `WAYS`, and return how it ended."""
    attempt, before = run.start(), run.step()
    target = before // 10 * 10 + 9 if how == "dev" else before + 1  # every tenth step is evaluated
    target += 10 * (target <= before)
    wait_for(lambda: run.step() >= target or not attempt.running())
    if how == "save":
        wait_for(lambda: run.saving() or not attempt.running(), pause=0.0)
    elif how == "dev":
        time.sleep(0.25)
    for _ in range(2 if how == "twice" else 1):
        attempt.send(number, () if how == "group" else attempt.ranks().values())
    return _ended(run, attempt)


def _ended(run: Run, attempt: Attempt) -> dict[str, Any]:
    since = time.monotonic()
    status = attempt.wait()
    return {
        "status": status,
        "seconds": time.monotonic() - since,
        "lost": run.step() - run.saved(),
        "text": attempt.text(),
    }


def _summary(stops: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "moments": len(stops),
        "lost_max": max(stop["lost"] for stop in stops),
        "end_seconds": max(stop["seconds"] for stop in stops),
        "status": ", ".join(sorted({str(stop["status"]) for stop in stops})),
        "note": " ".join(stop["text"][-600:] for stop in stops if stop["status"] not in (0, 130)),
    }


def interrupted(bench: Bench) -> dict[str, Any]:
    """Ctrl-C, which a terminal sends to every process: steps since the last save are lost."""
    run = bench.run(save_every=4)
    stops = [_interrupt(run, bench.random.randrange(1, 9)) for _ in range(3)]
    end = bench.to_the_end(run)
    clean = all(stop["status"] == 130 and "Traceback" not in stop["text"] for stop in stops)
    return end | _summary(stops) | {"ok": end["ok"] and (clean or bench.ranks > 1)}  # torchrun has another exit status


def _interrupt(run: Run, steps: int) -> dict[str, Any]:
    attempt, before = run.start(), run.step()
    wait_for(lambda: run.step() >= before + steps or not attempt.running())
    attempt.send(signal.SIGINT)
    return _ended(run, attempt)
