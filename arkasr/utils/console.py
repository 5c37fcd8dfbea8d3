"""What a person at the terminal sees: log lines with time and place, and progress with rate and ETA."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TypeVar

T = TypeVar("T")
PLAIN_INTERVAL_S = 10.0


def is_main_rank() -> bool:
    """Tell whether this process speaks for all ranks of a torchrun launch."""
    return int(os.environ.get("RANK", "0")) == 0


def log(message: str, on_every_rank: bool = False) -> None:
    """Print one line with the time, from the first rank only, or from any with its number."""
    if is_main_rank() or on_every_rank:
        who = "arkasr" if is_main_rank() else f"arkasr, rank {os.environ['RANK']}"
        print(f"{datetime.now().isoformat(timespec='seconds')} ({who}) {message}", flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """A tqdm bar on a terminal, a plain line every ten seconds elsewhere; silent on other ranks."""

    def __init__(self, description: str, total: int | None, unit: str, initial: int = 0):
        self.description, self.total, self.unit = description, total, unit
        self.count = self.initial = initial
        self.start = self.last = time.monotonic()
        self.note, self.bar = "", None
        self.quiet = not is_main_rank()
        if not self.quiet and sys.stderr.isatty():
            from tqdm import tqdm

            # smoothing 0: the rate is the mean since the start, as of plain lines; else the time left forgets evaluations
            options = {"unit": unit, "initial": initial, "dynamic_ncols": True, "smoothing": 0}
            self.bar = tqdm(total=total, desc=description, **options)

    def update(self, n: int = 1, note: str = "") -> None:
        """Count n more units; the note stands at the end of the line."""
        self.count, self.note = self.count + n, note or self.note
        if self.bar is not None:
            self.bar.set_postfix_str(self.note, refresh=False)
            self.bar.update(n)
        elif not self.quiet and time.monotonic() - self.last >= PLAIN_INTERVAL_S:
            self._line()

    def _line(self) -> None:
        self.last = time.monotonic()
        rate = (self.count - self.initial) / max(self.last - self.start, 1e-9)
        of = f"/{self.total}" if self.total else ""
        eta = f", {_clock((self.total - self.count) / rate)} left" if self.total and rate > 0 else ""
        note = f", {self.note}" if self.note else ""
        log(f"{self.description}: {self.count}{of} {self.unit}, {rate:.1f} {self.unit}/s{eta}{note}")

    def close(self) -> None:
        """Finish the bar, or print the last plain line."""
        if self.bar is not None:
            self.bar.close()
        elif not self.quiet:
            self._line()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def track(items: Iterable[T], description: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Iterate with progress; `total` defaults to `len(items)` where it is known."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    with Progress(description, total, unit) as progress:
        for item in items:
            yield item
            progress.update()
