"""Rows for models that are no runs of the experiment (see `arkasr.evaluation.checkpoint_values`).

`<expdir>/NAME/checkpoint.yaml` is the configuration of a row: `model.path`, or the section `teacher`, names the model.
Its sections `data` and `decode` are those of the experiment's runs when the row is first decoded, or else the defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from arkasr.config.load import dump_config, read_config
from arkasr.config.schema import Config, PluginConfig
from arkasr.utils.files import sampled_digest
from arkasr.utils.hub import is_hub_id

CONFIG = "checkpoint.yaml"


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
    def model(self) -> str:
        """The model as in a value of --checkpoint."""
        return f"{self.plugin}:{self.path}" if self.plugin else self.path

    @property
    def facts(self) -> dict[str, str]:
        """The row's facts in scores.json."""
        return {"path": self.path, "plugin": self.plugin}


class Weights(NamedTuple):
    """The weights of a row.

    Attributes:
        path: Folder or Hub id.
        digest: Digest of the files, or the revision of a Hub id. Empty if they are not there.
    """

    path: str
    digest: str


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
        from transformers import PreTrainedConfig

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
    from huggingface_hub import try_to_load_from_cache  # large, as the imports in `fetch`

    found = try_to_load_from_cache(path, "config.json")
    return Weights(path, Path(found).parent.name if isinstance(found, str) else "")
