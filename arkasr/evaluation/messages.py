"""Messages between independent ranks through torch's store: decisions of rank 0, counters and lists."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

from arkasr.utils.console import log

POLL_SECONDS = 0.02, 0.5  # first and longest pause between two looks at the store
LOST = 1  # exit status of ranks that end because of another one; torchrun restarts them


class Messages:
    """The messages of one rank.

    Attributes:
        rank: Number of this process, from 0.
        world_size: Number of processes.
    """

    _store: dist.Store

    def __init__(self) -> None:
        self.rank, self.world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self._keys = 0

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def check(self) -> None:
        """Is called repeatedly while this rank waits. It may raise."""

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """End this rank if the store, which rank 0 holds, is gone."""
        try:
            yield
        except (RuntimeError, dist.DistError) as error:
            if os.environ.get("LOCAL_RANK", "0") == "0":
                log(f"rank {self.rank} ends, because rank 0 has ended or does not answer", on_every_rank=True)
            raise SystemExit(LOST) from error

    def new_key(self) -> str:
        """Return a key of the store that is the same on all ranks, if all call this equally often."""
        self._keys += 1
        return f"arkasr/{self._keys}"

    def decide(self, make: Callable[[], Any]) -> Any:
        """Compute a value on rank 0 and return it on all ranks.

        Args:
            make: Returns a value that JSON can hold. It runs on rank 0 only.

        Returns:
            The value.
        """
        key = self.new_key()
        if self.first:
            self._set(key, make())
        return self._get(key)

    def collect(self, value: Any, each: Callable[[], None] = lambda: None) -> list[Any]:
        """Collect one value of every rank on rank 0, which waits for all of them.

        Args:
            value: The value of this rank, which JSON can hold.
            each: Is called repeatedly while rank 0 waits.

        Returns:
            The values in the order of ranks. Empty on other ranks.
        """
        key = self.new_key()
        self._set(f"{key}/{self.rank}", value)
        return [self._get(f"{key}/{rank}", each) for rank in range(self.world_size)] if self.first else []

    def add(self, key: str, number: int = 0) -> int:
        """Add to a counter of all ranks.

        Args:
            key: Return value of `new_key`.
            number: What to add.

        Returns:
            The new sum.
        """
        with self._answered():
            return self._store.add(key, number)

    def append(self, key: str, values: list[Any]) -> None:
        """Append values to a list of all ranks.

        Args:
            key: Return value of `new_key`.
            values: Values that JSON can hold.
        """
        with self._answered():
            text = "".join(f"{json.dumps(value)}\n" for value in values)
            self._store.append(key, text)  # type: ignore[attr-defined]  # missing from the stubs

    def listed(self, key: str) -> list[Any]:
        """Return what all ranks have appended so far.

        Args:
            key: The key of `append`.

        Returns:
            The values.
        """
        with self._answered():
            text = self._store.get(key).decode() if self._store.check([key]) else ""
        return [json.loads(line) for line in text.splitlines()]

    def _set(self, key: str, value: Any) -> None:
        with self._answered():
            self._store.set(key, json.dumps(value))

    def _get(self, key: str, each: Callable[[], None] = lambda: None) -> Any:
        pause, longest = POLL_SECONDS
        while True:
            self.check()
            with self._answered():
                if self._store.check([key]):
                    return json.loads(self._store.get(key))
            each()
            time.sleep(pause)
            pause = min(1.5 * pause, longest)
