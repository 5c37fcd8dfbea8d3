"""A run is asked to stop: by a scheduler's signals, or Ctrl-C."""

from __future__ import annotations

import signal
import time
from typing import Any

from attempts import Attempt, Run, wait_for
from fault_bench import Bench

WAYS = ("step", "save", "dev", "twice", "group", "group")  # group: to all processes, as a scheduler does


def stopped(bench: Bench) -> dict[str, Any]:
    """SIGTERM or SIGUSR1 in a step, in a save, while evaluating, twice, and to all processes of the run at once."""
    run = bench.run(save_every=4)
    stops = [ask(run, how, [signal.SIGTERM, signal.SIGUSR1][at % 2]) for at, how in enumerate(WAYS)]
    end = bench.to_the_end(run)
    return end | _told(stops) | {"ok": end["ok"] and not any(stop["status"] or stop["lost"] for stop in stops)}


def ask(run: Run, how: str, number: signal.Signals) -> dict[str, Any]:
    """Start the run, send it a signal in one of these ways, and see how it ends."""
    attempt, before = run.start(), run.step()
    target = before // 10 * 10 + 9 if how == "dev" else before + 1  # each tenth step is evaluated
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


def _told(stops: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "moments": len(stops),
        "lost_max": max(stop["lost"] for stop in stops),
        "end_seconds": max(stop["seconds"] for stop in stops),
        "status": ", ".join(sorted({str(stop["status"]) for stop in stops})),
        "note": " ".join(stop["text"][-600:] for stop in stops if stop["status"] not in (0, 130)),
    }


def interrupted(bench: Bench) -> dict[str, Any]:
    """Ctrl-C, which a terminal sends to every process: what was not saved is lost."""
    run = bench.run(save_every=4)
    stops = [_interrupt(run, bench.random.randrange(1, 9)) for _ in range(3)]
    end = bench.to_the_end(run)
    clean = all(stop["status"] == 130 and "Traceback" not in stop["text"] for stop in stops)
    return end | _told(stops) | {"ok": end["ok"] and (clean or bench.ranks > 1)}  # torchrun has a status of its own


def _interrupt(run: Run, steps: int) -> dict[str, Any]:
    attempt, before = run.start(), run.step()
    wait_for(lambda: run.step() >= before + steps or not attempt.running())
    attempt.send(signal.SIGINT)
    return _ended(run, attempt)
