"""The meeting of the ranks of one run: every rank reaches rank 0's store, and rank 0 names how many are missing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from arkasr.errors import UserError
from arkasr.utils.console import log

if TYPE_CHECKING:
    from torch.distributed import Store

FIRST_NOTE, NEXT_NOTES = 5.0, 30.0  # seconds of waiting until the first log line, and between the next ones
_ARRIVED = "arkasr/arrived"


def meet(rank: int, world_size: int, timeout: float) -> Store:
    """Wait for all ranks of the run, with a log line while some are missing.

    Args:
        rank: Number of this rank.
        world_size: Number of ranks.
        timeout: Seconds to wait.

    Returns:
        The store through which the ranks form their process group.

    Raises:
        UserError: The port is taken, rank 0 cannot be reached, or not all ranks arrive in time.
    """
    store, end = _open_store(rank, world_size, timeout), time.monotonic() + timeout
    arrived, note = store.add(_ARRIVED, 1), time.monotonic() + FIRST_NOTE
    while rank == 0 and arrived < world_size:
        if time.monotonic() > end:
            raise UserError(
                f"{_missing(arrived, world_size)} after {timeout:g} s; start the same command on all machines, with "
                "the same --num_nodes, --ngpu, --master_addr and --master_port"
            )
        if time.monotonic() > note:
            log(_missing(arrived, world_size))
            note = time.monotonic() + NEXT_NOTES
        time.sleep(0.05)
        arrived = store.add(_ARRIVED, 0)
    return store


def _missing(arrived: int, world_size: int) -> str:
    return f"waiting at {_address()} for {world_size - arrived} of {world_size} ranks"


def _address() -> str:
    return f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"


def _open_store(rank: int, world_size: int, timeout: float) -> Store:
    from torch.distributed import TCPStore
    from torch.distributed.rendezvous import rendezvous

    limit = timedelta(seconds=timeout)
    with _noted(rank):
        try:
            if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # torchrun has opened it
                return next(rendezvous("env://", rank, world_size, timeout=limit))[0]
            host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            return TCPStore(host, port, world_size, rank == 0, limit, wait_for_workers=False, multi_tenant=True)
        except KeyError as error:
            raise UserError(
                f"environment variable {error.args[0]} is not set, but WORLD_SIZE is {world_size}; start the command "
                "with torchrun, or unset WORLD_SIZE and RANK"
            ) from error
        except (RuntimeError, ValueError) as error:
            raise _no_store(rank, timeout, error) from error


@contextmanager
def _noted(rank: int) -> Iterator[None]:
    """Log a line if the body takes long: reaching rank 0 blocks until it has started."""
    message = f"rank {rank} is waiting for rank 0 at {_address()}"
    timer = threading.Timer(FIRST_NOTE, log, [message, True])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _no_store(rank: int, timeout: float, error: Exception) -> UserError:
    why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if "EADDRINUSE" in str(error) or "already in use" in str(error):
        return UserError(
            f"port {os.environ.get('MASTER_PORT')} of this machine is taken by another process; choose another "
            "--master_port on all machines, or end that process"
        )
    if rank == 0:
        return UserError(f"rank 0 cannot open its store at {_address()} ({why}); correct --master_addr, --master_port")
    return UserError(
        f"rank {rank} cannot reach rank 0 at {_address()} within {timeout:g} s ({why}); check that the first machine "
        "has started, --master_addr and --master_port are the same everywhere, and no firewall blocks the port"
    )
