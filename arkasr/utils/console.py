"""Console output: log lines with time and rank, and progress with rate and remaining time."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from datetime import datetime
from typing import Any, TypeVar

from arkasr.utils.redact import without_secrets

T = TypeVar("T")
PLAIN_INTERVAL_S = 10.0  # seconds between progress lines if the output is not a terminal

_every_rank_only = False


def is_main_rank() -> bool:
    """Return whether this process prints for all ranks of a torchrun launch (rank 0)."""
    return int(os.environ.get("RANK", "0")) == 0


def visible(text: str) -> str:
    r"""Make a text safe to show on a terminal: its control characters appear as \xNN.

    Args:
        text: Any text.

    Returns:
        The text. Tabs and line ends are kept.
    """
    return "".join(c if c.isprintable() or c in "\t\n" else c.encode("unicode_escape").decode() for c in text)


def printable(text: str) -> str:
    r"""Make a text safe to print: terminal escapes are shown as \xNN, and secrets of addresses as `***`.

    Args:
        text: Text that may quote a file, a server or a configuration.

    Returns:
        The text. Tabs and line ends are kept.
    """
    return without_secrets(visible(text))


def log_on_every_rank_only() -> None:
    """Make `log` print only what every rank prints. For a process that repeats the work of another one."""
    global _every_rank_only
    _every_rank_only = True


def log(message: str, on_every_rank: bool = False) -> None:
    """Print one line with the time.

    Args:
        message: Text of the line.
        on_every_rank: Print on every rank, with its number, not on rank 0 only.
    """
    if (is_main_rank() and not _every_rank_only) or on_every_rank:
        source = "arkasr" if is_main_rank() else f"arkasr, rank {os.environ['RANK']}"
        print(f"{datetime.now().isoformat(timespec='seconds')} ({source}) {printable(message)}", flush=True)


def count_text(number: int, noun: str) -> str:
    """Format a number of things.

    Args:
        number: How many there are.
        noun: Their name in the singular, such as `window` or `stretch`.

    Returns:
        The number and the noun, in the plural unless the number is 1.
    """
    ending = "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}{ending}"


def length_text(hours: float) -> str:
    """Format the length of audio.

    Args:
        hours: The length in hours.

    Returns:
        Hours from one hour on, minutes from one minute on, or seconds, with the unit.
    """
    if hours >= 1:
        return f"{hours:,.2f} h"
    return f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Progress of a loop: a tqdm bar on a terminal, otherwise one log line every ten seconds. Only rank 0 prints.

    Use it as a context manager, or call `close` at the end. `total` may be changed between updates, if it is estimated.

    Args:
        description: Name of the loop.
        total: Number of units, or None if it is not known.
        unit: Name of the units, in the plural.
        initial: Units that an earlier process has done. They do not count in the rate.
    """

    def __init__(self, description: str, total: int | None, unit: str, initial: int = 0):
        self.description, self.total, self.unit = description, total, unit
        self.count = self.initial = initial
        self.start = self.last = time.monotonic()
        self.note = ""
        self.bar: Any = None
        self.quiet = not is_main_rank()
        if not self.quiet and sys.stderr.isatty():
            from tqdm import tqdm

            # smoothing=0: the rate is the mean since the start, as in log lines. The remaining time then includes
            # regular interruptions such as evaluations.
            options: dict[str, Any] = {"unit": unit, "initial": initial, "dynamic_ncols": True, "smoothing": 0}
            self.bar = tqdm(total=total, desc=description, **options)

    def update(self, n: int = 1, note: str = "") -> None:
        """Count finished units.

        Args:
            n: Number of units.
            note: Text for the end of the line. It stays until the next note.
        """
        self.count, self.note = self.count + n, note or self.note
        if self.bar is not None:
            self.bar.total = self.total
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
        """Close the bar, or print the last log line."""
        if self.bar is not None:
            self.bar.close()
        elif not self.quiet:
            self._line()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def track(items: Iterable[T], description: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Iterate with progress.

    Args:
        items: What to iterate over.
        description: Name of the loop.
        total: Number of items. Defaults to `len(items)` if that exists.
        unit: Name of the items, in the plural.

    Yields:
        The items.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(description, total, unit) as progress:
        for item in items:
            yield item
            progress.update()
