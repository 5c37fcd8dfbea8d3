"""Warnings that arkasr itself causes, without those inside libraries."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from pathlib import Path

import arkasr

PACKAGE = Path(arkasr.__file__).parent
# frames between a deprecated call and its warning: torch's module call, and the decorators of transformers
BETWEEN = ("/warnings.py", "torch/nn/modules/", "transformers/utils/", "/contextlib.py", "/functools.py")


@dataclass
class OwnWarnings:
    """Replaces `warnings.showwarning`: keeps a warning if the call that caused it is in a file of arkasr."""

    found: list[tuple[type[Warning], str]] = field(default_factory=list)

    def __call__(self, message, category, filename, lineno, file=None, line=None):
        frames = [f for f in traceback.extract_stack()[:-1] if not any(part in f.filename for part in BETWEEN)]
        if PACKAGE in Path(frames[-1].filename).parents:
            self.found.append((category, f"{frames[-1].filename}:{frames[-1].lineno}: {message}"))
