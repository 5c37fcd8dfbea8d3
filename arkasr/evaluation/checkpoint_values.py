"""Values of --checkpoint.

A value is `[NAME=]MODEL`. MODEL is one of

- a folder or a Hub id of Ark-ASR, Qwen3-ASR or GLM-ASR, such as an export, or `Qwen/Qwen3-ASR-0.6B`; also a folder of
  LoRA adapters
- `PLUGIN:PATH`: a teacher plugin and its option `path`, such as `whisper:openai/whisper-tiny`

NAME names the row and its folder in the experiment directory. By default, it is made of the path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from arkasr.config.load import is_run_name
from arkasr.errors import UserError
from arkasr.evaluation.checkpoints import Checkpoint, read_checkpoint
from arkasr.evaluation.paper_numbers import TITLES
from arkasr.plugins import registry
from arkasr.utils.files import read_json
from arkasr.utils.hub import is_hub_id

_PLUGIN = re.compile(r"([A-Za-z0-9_][\w.-]*):(.*)", re.DOTALL)
FOLDERS = ("figures", "test_sets")  # in every experiment directory
_UNNAMED = ("export", "final", "adapter")  # folders that are named after their run


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
                f"--checkpoint {value}: two models have the name {row.name}; name one of them with NAME={row.model}"
            )
        _check_name(value, row, expdir)
        _check_model(value, row)
        rows[row.name] = row
    return list(rows.values())


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
    where, advice = f"--checkpoint {value}", f"choose another name with NAME={row.model}"
    if not is_run_name(row.name):
        raise UserError(f"{where}: {row.name!r} cannot be the name of a row; use letters, digits, _, - and .; {advice}")
    if row.name in FOLDERS:
        raise UserError(f"{where}: {row.name} is a folder of results in the experiment directory; {advice}")
    if row.name in TITLES or (Path(expdir) / row.name / "config.yaml").is_file():
        raise UserError(f"{where}: {row.name} is the name of a run; {advice}")
    earlier = read_checkpoint(expdir, row.name)
    if earlier is not None and (earlier.path, earlier.plugin) != (row.path, row.plugin):
        raise UserError(
            f"{where}: {Path(expdir) / row.name} belongs to the model {earlier.model}; {advice}, or delete that folder"
        )


def _check_model(value: str, row: Checkpoint) -> None:
    from arkasr.model.loading import MODELS  # takes seconds, and scores of runs do not need it
    from arkasr.model.lora_files import base_of, is_adapter

    where = f"--checkpoint {value}"
    if row.plugin:
        try:
            registry.check_plugin("teacher", row.plugin, {"path": row.path})
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        return
    path = base_of(row.path) if is_adapter(row.path) else row.path
    if not is_hub_id(path):
        config = Path(path) / "config.json"
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
