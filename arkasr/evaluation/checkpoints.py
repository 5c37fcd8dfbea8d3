"""Rows for models that are no runs of the experiment: values of --checkpoint.

A value is `[NAME=]MODEL`. MODEL is one of

- a folder or a Hub id of Ark-ASR, Qwen3-ASR or GLM-ASR, such as an export, or `Qwen/Qwen3-ASR-0.6B`
- `PLUGIN:PATH`: a teacher plugin and its option `path`, such as `whisper:openai/whisper-tiny`

NAME names the row and its folder in the experiment directory. By default, it is made of the path. The folder holds
`checkpoint.yaml`, a configuration in which `model.path`, or the section `teacher`, names the model. Its sections
`data` and `decode` are those of the experiment's runs when the row is first decoded, or else the defaults.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import try_to_load_from_cache
from transformers import PreTrainedConfig

from arkasr.config.load import dump_config, is_run_name, read_config
from arkasr.config.schema import Config, PluginConfig
from arkasr.errors import UserError
from arkasr.evaluation.paper_numbers import TITLES
from arkasr.model.loading import MODELS
from arkasr.model.weight_files import is_hub_id
from arkasr.plugins import registry
from arkasr.utils.files import read_json, sampled_digest

CONFIG = "checkpoint.yaml"
_PLUGIN = re.compile(r"([A-Za-z0-9_][\w.-]*):(.*)", re.DOTALL)
_UNNAMED = ("export", "final")  # folders that are named after their run


@dataclass(frozen=True)
class Checkpoint:
    """One row.

    Attributes:
        name: Name of the row and of its folder.
        path: Absolute path or Hub id of the model.
        plugin: Name of the teacher plugin that loads it. Empty for the models of arkasr.
    """

    name: str
    path: str
    plugin: str = ""

    @property
    def facts(self) -> dict[str, str]:
        """What scores.json says about the row."""
        return {"path": self.path, "plugin": self.plugin}


class Weights(NamedTuple):
    """The weights of a row.

    Attributes:
        path: Folder or Hub id.
        digest: Digest of the files, or the revision of a Hub id. Empty if they are not there.
    """

    path: str
    digest: str


def parse_checkpoints(values: Sequence[str], expdir: str) -> list[Checkpoint]:
    """Read values of --checkpoint.

    Args:
        values: The values (see the module docstring).
        expdir: Experiment directory.

    Returns:
        The rows, in order.

    Raises:
        UserError: A name is repeated, is that of a run or belongs to another model, or a model cannot be used.
    """
    rows: dict[str, Checkpoint] = {}
    for value in values:
        row = _parse(value)
        if row.name in rows:
            raise UserError(
                f"--checkpoint {value}: two models have the name {row.name}; name one of them with NAME={_model(row)}"
            )
        _check_name(value, row, expdir)
        _check_model(value, row)
        rows[row.name] = row
    return list(rows.values())


def _model(row: Checkpoint) -> str:
    return f"{row.plugin}:{row.path}" if row.plugin else row.path


def _parse(value: str) -> Checkpoint:
    name, equals, model = value.partition("=")
    if not equals or Path(value).exists():
        name, model = "", value
    plugin = None if Path(model).exists() else _PLUGIN.fullmatch(model)
    kind, path = plugin.groups() if plugin else ("", model)
    if not path.strip():
        raise UserError(
            f"--checkpoint {value}: names no model; give [NAME=] and a folder, a Hub id (owner/name), or PLUGIN:PATH"
        )
    if Path(path).expanduser().exists():
        path = str(Path(path).expanduser().absolute())
    return Checkpoint(name if equals and name else _name_of(path), path, kind)


def _name_of(path: str) -> str:
    parts = [part for part in Path(path).parts if part not in _UNNAMED] or [path]
    return re.sub(r"[^\w.-]+", "-", parts[-1]).strip("-.") or "checkpoint"


def _check_name(value: str, row: Checkpoint, expdir: str) -> None:
    where, advice = f"--checkpoint {value}", f"choose another name with NAME={_model(row)}"
    if not is_run_name(row.name):
        raise UserError(f"{where}: {row.name!r} cannot be the name of a row; use letters, digits, _, - and .; {advice}")
    if row.name in TITLES or (Path(expdir) / row.name / "config.yaml").is_file():
        raise UserError(f"{where}: {row.name} is the name of a run; {advice}")
    earlier = read_checkpoint(expdir, row.name)
    if earlier is not None and (earlier.path, earlier.plugin) != (row.path, row.plugin):
        raise UserError(
            f"{where}: {Path(expdir) / row.name} belongs to the model {_model(earlier)}; {advice}, or delete that "
            "folder"
        )


def _check_model(value: str, row: Checkpoint) -> None:
    where = f"--checkpoint {value}"
    if row.plugin:
        try:
            registry.check_plugin("teacher", row.plugin, {"path": row.path})
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    elif not is_hub_id(row.path):
        config = Path(row.path) / "config.json"
        if not config.is_file():
            raise UserError(
                f"{where}: no model here (no {config}); give the folder of a model, a Hub id (owner/name), or a "
                "teacher plugin as PLUGIN:PATH"
            )
        model_type = read_json(config, "copy the model again").get("model_type")
        if model_type not in MODELS:
            raise UserError(
                f"{where}: model_type {model_type!r} in config.json is not one of {', '.join(sorted(MODELS))}; use "
                f"such a model, or a teacher plugin that loads it, as PLUGIN:{row.path}"
            )


def read_checkpoint(expdir: str | Path, name: str) -> Checkpoint | None:
    """Read which model a row of an experiment belongs to.

    Args:
        expdir: Experiment directory.
        name: Name of the row.

    Returns:
        The row, or None if it is a run, or does not exist.

    Raises:
        UserError: Its configuration is damaged.
    """
    path = Path(expdir) / name / CONFIG
    if not path.is_file():
        return None
    config = read_config(path)
    if config.model.path:
        return Checkpoint(name, config.model.path)
    return Checkpoint(name, str(config.teacher.options.get("path", "")), config.teacher.name)


def write_checkpoint(row: Checkpoint, expdir: str) -> Path:
    """Write the configuration of a row, unless it exists.

    Args:
        row: The row.
        expdir: Experiment directory.

    Returns:
        The file.
    """
    path = Path(expdir) / row.name / CONFIG
    if not path.is_file():
        runs = sorted(Path(expdir).glob("*/config.yaml"))
        config = read_config(runs[0]) if runs else Config()
        config = replace(Config(run=row.name), data=config.data, decode=config.decode)
        if row.plugin:
            config = replace(config, teacher=PluginConfig(row.plugin, {"path": row.path}))
        else:
            config = replace(config, model=replace(config.model, path=row.path))
        path.parent.mkdir(parents=True, exist_ok=True)
        dump_config(config, path)
    return path


def fetch(row: Checkpoint) -> None:
    """Download the configuration of a model on the Hub, so that its revision is known.

    Args:
        row: The row. Nothing is done for a folder, or for a plugin, which loads its model itself.

    Raises:
        UserError: The Hub has no such model, or cannot be reached.
    """
    if not row.plugin and is_hub_id(row.path):
        from arkasr.model.reading import reading

        with reading(row.path):
            PreTrainedConfig.get_config_dict(row.path)


def weights_of(expdir: str | Path, run: str) -> Weights:
    """Return the weights of a row.

    Args:
        expdir: Experiment directory.
        run: Name of a run or of a checkpoint.

    Returns:
        The final weights of a run, or those of the checkpoint.
    """
    row = read_checkpoint(expdir, run)
    path = str(Path(expdir) / run / "final") if row is None or row.plugin else row.path
    if not is_hub_id(path):
        return Weights(path, sampled_digest(Path(path)))
    found = try_to_load_from_cache(path, "config.json")
    return Weights(path, Path(found).parent.name if isinstance(found, str) else "")
