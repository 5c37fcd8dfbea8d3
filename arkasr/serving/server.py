"""The HTTP server: silent connections are closed, and a signal ends the service when its requests are done."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from arkasr.errors import UserError
from arkasr.serving.connection import LINGER_SECONDS
from arkasr.serving.limits import Limits
from arkasr.serving.service import Service
from arkasr.utils.console import log
from arkasr.utils.ending import end_process

POLL_SECONDS = 0.05
OTHER_CONNECTIONS = 256  # beside the requests that hold places: silent ones, and those of the page and of monitors
FILES_PER_REQUEST = 3  # its connection, its upload, and what a decoder opens


class _TimedProtocol(H11Protocol):
    """HTTP connections that must send a whole head of a request within the time for idle connections."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time when the client connects."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Stop the time when a request has begun."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Start the time when a request is answered."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time."""
        super().connection_lost(exc)
        self._stop()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.timeout_keep_alive, self.transport.close)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `_run`: uvicorn would end with the status of the signal, and refuse connections at once."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """Open the socket that listens.

    Args:
        host: Address or name of this machine.
        port: Port. 0 picks a free one.

    Returns:
        The socket.

    Raises:
        UserError: The address is not one of this machine, or the port is taken or not allowed.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        what_to_do = "choose another --port, or 0 for a free one; --host must be an address of this machine"
        raise UserError(f"--host {host} --port {port}: cannot listen ({reason}); {what_to_do}") from error


def address_of(listening: socket.socket) -> str:
    """Return the address of a service for a browser.

    Args:
        listening: Its socket.

    Returns:
        The address, such as http://127.0.0.1:8000.
    """
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: ASGIApp, service: Service, listening: socket.socket) -> None:
    """Answer requests until a signal ends the service.

    SIGTERM or SIGINT: running requests end, new ones are refused with status 503. A second signal ends at once.

    Args:
        app: The application.
        service: Its model, queue and clients.
        listening: The socket.
    """
    _allow_files(service.limits.max_requests)
    asyncio.run(_run_until_signal(app, service, listening))


async def _run_until_signal(app: ASGIApp, service: Service, listening: socket.socket) -> None:
    loop, ending = asyncio.get_running_loop(), asyncio.Event()

    def end(number: signal.Signals) -> None:
        if ending.is_set():
            end_process(128 + number, "")
        log(f"{number.name}: {service.num_open} requests end, new ones are refused; a second signal ends at once")
        ending.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    await run_until(ending, app, service, listening)


async def run_until(ending: asyncio.Event, app: ASGIApp, service: Service, listening: socket.socket) -> None:
    """Answer requests until an event is set and the running requests have ended. New ones are refused meanwhile.

    Args:
        ending: The event.
        app: The application.
        service: Its model, queue and clients.
        listening: The socket.
    """
    server = _Server(_config(app, service.limits))
    service.start()
    serving, waiting = asyncio.create_task(server.serve(sockets=[listening])), asyncio.create_task(ending.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    service.drain()
    while service.num_open and not serving.done():
        await asyncio.sleep(POLL_SECONDS)
    server.should_exit = True
    await serving
    waiting.cancel()
    service.close()


def _config(app: ASGIApp, limits: Limits) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_TimedProtocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=max(1, round(limits.client_timeout)),
        limit_concurrency=limits.max_requests + OTHER_CONNECTIONS,
        timeout_graceful_shutdown=round(LINGER_SECONDS) + 1,
    )


def _allow_files(requests: int) -> None:
    """Raise the limit of open files of this process as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = FILES_PER_REQUEST * requests + OTHER_CONNECTIONS + 100
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < needed:
            log(f"only {allowed} files may be open (ulimit -n), {needed} may be needed; lower --max_requests")
