"""A configuration with renamed keys, for tests of the messages about old names."""

from __future__ import annotations

from dataclasses import dataclass, field

from arkasr.config.schema import Config, OptimConfig


@dataclass
class RenamedOptim(OptimConfig):
    peak: float = field(default=1.0, metadata={"formerly": "max_lr"})


@dataclass
class RenamedConfig(Config):
    optim: RenamedOptim = field(default_factory=RenamedOptim)
    rate: float = field(default=1.0, metadata={"formerly": "speed"})
