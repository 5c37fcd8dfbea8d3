"""A Python that starts stages of a recipe without importing large packages again: their import takes most of the time.

This file is a server that imports third-party packages once. Each stage is a copy of it (a fork) with the arguments,
environment, folder and streams of the client, which imports arkasr itself. The client is a small program that a recipe
gets as `--python`. It ends with the status of the stage, and starts the real Python for anything but `-m arkasr`.
Signals are not passed on, so tests of signals need the real Python.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

PACKAGES = (
    "lhotse",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "scipy.signal",
    "torch._dynamo",
    "torch.distributed.checkpoint.state_dict",
    "torch.distributed.fsdp",
    "torch.utils.tensorboard",
    "transformers.models.auto.processing_auto",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.qwen3_asr.modeling_qwen3_asr",
    "transformers.models.glmasr.modeling_glmasr",
    "transformers.models.whisper.modeling_whisper",
)
CLIENT = """#!{python} -IS
import json, os, socket, sys
if sys.argv[1:3] != ["-m", "arkasr"]:
    os.execv("{python}", ["{python}", *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as server:
    server.connect("{address}")
    request = json.dumps([sys.argv[3:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(request)
    sys.exit(int(server.makefile().read() or 1))
"""


@contextmanager
def loaded_python(folder: Path) -> Iterator[Path]:
    """Run the server.

    Args:
        folder: An empty folder, with a short path.

    Yields:
        The client, which is used as a Python.
    """
    client, address = folder / "python", folder / "socket"
    client.write_text(CLIENT.format(python=sys.executable, address=address))
    client.chmod(0o755)
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, __file__, str(address)]
    server = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert server.stdout.readline() == b"ready\n"
        yield client
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # stages too
        server.communicate()


def run_stage(connection: socket.socket) -> NoReturn:
    """Run `python -m arkasr` as the client asks, and send it the exit status."""
    size, streams, _, _ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as file:
        words, folder, environment = json.loads(file.read(int.from_bytes(size, "big")))
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = map(os.fdopen, range(3), "rww", (-1, -1, 1))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:1] = [folder, *environment.get("PYTHONPATH", "").split(os.pathsep)]
    sys.argv = ["arkasr", *words]
    status: object = 0
    try:
        runpy.run_module("arkasr", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(str(int(status or 0)).encode())
    os._exit(0)


def reap(*_: object) -> None:
    """Take the status of stages that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def serve(address: str) -> None:
    """Fork a process for each client."""
    signal.signal(signal.SIGCHLD, reap)
    gc.disable()
    for name in PACKAGES:
        import_module(name)
    gc.freeze()  # stages do not search the packages for garbage
    gc.enable()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print("ready", flush=True)
        while True:
            connection = server.accept()[0]
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                server.close()
                run_stage(connection)
            connection.close()


if __name__ == "__main__":
    serve(sys.argv[1])
