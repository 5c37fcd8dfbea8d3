"""The three hooks by which plugins register teachers, token mappers and losses, and the markers for them.

A plugin package declares an entry point in the group `arkasr`. The entry point names a module (or object) whose
functions are marked with `@arkasr.hookimpl`. Every `arkasr` command imports this module, so it must not import large
packages. Name your classes as "package.module:Class", or import torch inside them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import pluggy

GROUP = "arkasr"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Register(Protocol):
    """The function that a hook receives to register names."""

    def __call__(self, name: str, factory: Callable[..., Any] | str, config: type | str | None = None) -> None:
        """Register `factory` as `name`.

        Args:
            name: Name that configurations use: letters, digits, `_`, `-` and `.`.
            factory: Class or function, or "package.module:attribute", which is imported on first use.
            config: Dataclass of the options, or its "package.module:attribute". The options in a configuration are
                checked against it, and the factory receives the instance as its first argument. With None, no option
                is allowed, and the first argument is None.

        Raises:
            UserError: The name has other characters, the plugin registers it twice, or an argument has another type.
        """


@hookspec
def register_teachers(register: Register) -> None:
    """Register teachers: `register(name, factory, config=None)`.

    The factory is called as `factory(options, device=...)`, where `device` is the torch device of the rank. It returns
    an object that implements `arkasr.Teacher`. The section of the configuration is `teacher`.

    Args:
        register: Registers one name per call.
    """


@hookspec
def register_token_mappers(register: Register) -> None:
    """Register token mappers: `register(name, factory, config=None)`.

    The factory is called as `factory(options, student=..., teacher=...)`. Both arguments have the attributes
    `tokenizer` and `stop_ids`. It returns an object that implements `arkasr.TokenMapper`. The section of the
    configuration is `mapper`.

    Args:
        register: Registers one name per call.
    """


@hookspec
def register_losses(register: Register) -> None:
    """Register losses: `register(name, factory, config=None)`.

    The factory is called as `factory(options)`. It returns an object that implements `arkasr.Loss`: a function of
    student view, teacher view and support that returns a sum over positions and the number of positions. The section
    of the configuration is `loss`.

    Args:
        register: Registers one name per call.
    """
