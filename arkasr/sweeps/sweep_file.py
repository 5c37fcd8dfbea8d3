"""The file of a sweep: which runs of a configuration are trained, with which overrides, and over which seeds."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from itertools import combinations
from pathlib import Path
from typing import Any

from arkasr.config.load import run_names
from arkasr.config.schema import MOST_SEED
from arkasr.config.validate import build_dataclass, check_values
from arkasr.config.yaml_io import read_yaml
from arkasr.errors import UserError
from arkasr.sweeps.points import OF_ONE_RUN, Point, make_points

ONCE = "once"  # folder of the runs that all seeds and points share
SHARED = "shared"  # folder of the runs that all points of a seed share
PER_SEED = {"seed": "seeds", "rounding": "roundings"}  # keys that every repetition sets, and their lists
RUN_LISTS = ("once", "shared", "runs")  # each run is in one of them


@dataclass
class SweepFile:
    """The keys of a sweep file.

    Attributes:
        conf: Configuration file, relative to the sweep file.
        title: Title of table and figure. Empty: name of the file.
        once: Runs that are trained once for all seeds and roundings, with the first seed, such as `[teacher]`.
        shared: Runs that are trained once per seed and used by all points, such as `[base]`.
        runs: Runs that are trained for each point, such as `[base_opd]`.
        grid: Lists of values by key of the configuration. Each combination is a point.
        points: Overrides by name of the point, for points that are no grid.
        overrides: Overrides of all runs and points.
        seeds: Values of `seed`, from 0 to 2147483647.
        roundings: Values of `rounding`. Seeds are repeated with each of them. They apply to `runs` only.
        rounding_seeds: Seeds that are repeated with all roundings. The others have the first one. Empty: all seeds.
        controls: Rows of the table that the other rows are compared with: a run, or a point.
        skip: Runs and points that are not trained, and stand in the table as "not run".
    """

    conf: str
    runs: list[str]
    title: str = ""
    once: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    grid: dict[str, list[Any]] = field(default_factory=dict)
    points: dict[str, dict[str, Any]] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [1])
    roundings: list[int] = field(default_factory=lambda: [0])
    rounding_seeds: list[int] = field(default_factory=list)
    controls: list[str] = field(default_factory=list)
    skip: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("runs", "seeds", "roundings"):
            if not getattr(self, name):
                raise ValueError(f"{name} must have at least one value, got an empty list")
        for item in fields(self):
            values = getattr(self, item.name)
            if isinstance(values, list) and len(set(values)) < len(values):
                raise ValueError(f"{item.name} must have different values, got {values}")
        for name in PER_SEED.values():
            if not all(0 <= value <= MOST_SEED for value in getattr(self, name)):
                raise ValueError(f"{name} must be from 0 to {MOST_SEED}, got {getattr(self, name)}")
        if unknown := set(self.rounding_seeds) - set(self.seeds):
            raise ValueError(f"rounding_seeds must be some of seeds {self.seeds}, got {min(unknown)}")


@dataclass(frozen=True, eq=False)  # hashable, so that what follows from a sweep is computed once
class Sweep:
    """A checked sweep.

    Attributes:
        path: The sweep file.
        conf: The configuration file.
        file: The keys of the sweep file.
        points: The points, in the order of the table.
    """

    path: Path
    conf: Path
    file: SweepFile
    points: list[Point]

    @property
    def title(self) -> str:
        """Title of table and figure."""
        return self.file.title or self.path.stem


def read_sweep(path: str | Path) -> Sweep:
    """Read and check a sweep file. The values of the overrides are checked when the configuration is loaded.

    Args:
        path: The file.

    Returns:
        The sweep.

    Raises:
        UserError: A key is unknown or has a wrong value, or a run or a point does not exist or is named twice.
    """
    values = check_values(SweepFile, read_yaml(path), "", str(path))
    file = build_dataclass(SweepFile, values, "", str(path))
    conf = Path(path).parent / file.conf
    if not conf.is_file():
        raise UserError(f"{path}: conf {conf}: no such file; give the path of the configuration from the sweep file")
    for key in [*file.overrides, *file.grid, *(key for each in file.points.values() for key in each)]:
        if key in PER_SEED:
            raise UserError(f"{path}: key {key} cannot be an override of all runs; list its values in {PER_SEED[key]}")
    points = make_points(file.grid, file.points, str(path))
    _check_names(Path(path), conf, file, points)
    return Sweep(Path(path), conf, file, points)


def _check_names(path: Path, conf: Path, file: SweepFile, points: list[Point]) -> None:
    known, trained = run_names(conf), [*file.once, *file.shared, *file.runs]
    for name in trained:
        if name not in known:
            raise UserError(f"{path}: {conf} has no run {name}; available: {', '.join(known)}")
    for one, other in combinations(RUN_LISTS, 2):
        if twice := set(getattr(file, one)) & set(getattr(file, other)):
            raise UserError(f"{path}: run {min(twice)} is in both {one} and {other}; keep one")
    for point in points:
        _check_overrides(path, file, point)
    names = [point.name for point in points if point.name]
    if clash := {ONCE, SHARED, *trained} & set(names):
        raise UserError(f"{path}: point {min(clash)} has the name of a run, or is {ONCE} or {SHARED}; rename it")
    for name in file.skip:
        if name not in (*trained, *names):
            raise UserError(f"{path}: skip: {name} is neither a run nor a point of the sweep; correct or remove it")


def _check_overrides(path: Path, file: SweepFile, point: Point) -> None:
    """Refuse overrides of runs that all points share, because they would have no effect."""
    for key in point.overrides:
        found = OF_ONE_RUN.fullmatch(key)
        for name in (ONCE, SHARED):
            if found and found[1] in getattr(file, name):
                raise UserError(
                    f"{path}: point {point.name}: key {key}: run {found[1]} is in `{name}`, so all points use the same "
                    "one; move it to `runs`, or set the key under `overrides`"
                )
