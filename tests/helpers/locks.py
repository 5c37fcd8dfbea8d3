"""A second process that holds the lock of a folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CODE = """
import sys
from pathlib import Path
from arkasr.utils.files import locked
with locked(Path(sys.argv[1]), "testing"):
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def lock_held(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder in another process."""
    command = [sys.executable, "-c", CODE, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        yield
        process.communicate()
