"""The markers and the three hooks through which teachers, token mappers and losses enter, by name.

A plugin package declares an entry point in the group `arkasr` that names a module (or object) whose functions are
marked with `@arkasr.hookimpl`. Such a module is imported by every `arkasr` command, so it imports nothing heavy:
it names its classes as "package.module:Class", or imports torch inside them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import pluggy

GROUP = "arkasr"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Register(Protocol):
    """What a hook is handed to announce its names with."""

    def __call__(self, name: str, factory: Callable[..., Any] | str, config: type | str | None = None) -> None:
        """Announce `factory` under `name`, the name that configs use.

        factory: a class or function, or "package.module:attribute", imported when the name is first asked for.
        config: the dataclass of the options, or its "package.module:attribute". The options of a config are checked
        against it and the factory gets the instance as its first argument. None: there are no options, and the
        first argument is None.
        Raises UserError for a name that is not plain text, is registered twice by one plugin, or for another type.
        """


@hookspec
def register_teachers(register: Register) -> None:
    """Register teachers: `register(name, factory, config=None)`.

    The factory is called as `factory(options, device=...)`, with the torch device of the rank, and returns an object
    that fulfils `arkasr.Teacher`: it scores given transcripts under audio, transcribes audio, and knows its tokenizer
    and stop ids. Config section: `teacher`.
    """


@hookspec
def register_token_mappers(register: Register) -> None:
    """Register token mappers: `register(name, factory, config=None)`.

    The factory is called as `factory(options, student=..., teacher=...)`, both with a `tokenizer` and `stop_ids`, and
    returns an object that fulfils `arkasr.TokenMapper`. Config section: `mapper`.
    """


@hookspec
def register_losses(register: Register) -> None:
    """Register losses: `register(name, factory, config=None)`.

    The factory is called as `factory(options)` and returns an object that fulfils `arkasr.Loss`: a callable that
    takes student view, teacher view and support, and returns a sum over positions and their number. Config
    section: `loss`.
    """
