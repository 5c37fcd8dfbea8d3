"""Select which weights to export: final, latest, best on the dev clips, or one checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from arkasr.config.load import read_config
from arkasr.config.schema import Config
from arkasr.errors import UserError
from arkasr.evaluation import run_records
from arkasr.model.checkpoint_files import complete_checkpoints, load_checkpoint
from arkasr.model.loading import load_speech_lm
from arkasr.model.speech_lm.auto import SpeechLM

FINAL = "final"


@dataclass(frozen=True)
class WeightSource:
    """Weights of one run.

    Attributes:
        run: Name of the run.
        name: `final`, or the name of the checkpoint.
        folder: Where the weights are.
        step: Number of optimizer steps.
        config: Configuration of the run.
    """

    run: str
    name: str
    folder: Path
    step: int
    config: Config

    def load(self) -> SpeechLM:
        """Load the weights on the CPU.

        Returns:
            The model, in the data type of training.
        """
        dtype = self.config.model.dtype
        return load_speech_lm(str(self.folder), dtype) if self.name == FINAL else load_checkpoint(self.folder, dtype)


def _read_config(expdir: str, run: str) -> Config:
    path = Path(expdir) / run / "config.yaml"
    if not path.is_file():
        others = ", ".join(sorted(found.parent.name for found in Path(expdir).glob("*/config.yaml"))) or "none"
        raise UserError(f"{path.parent}: no such run (no config.yaml); existing runs: {others}")
    config = read_config(path)
    if config.model.type != "arkasr":
        raise UserError(
            f"{path.parent}: a model of type {config.model.type} cannot be exported, only arkasr; "
            f"transformers loads {path.parent / FINAL} directly"
        )
    return config


def find_source(expdir: str, run: str, checkpoint: str) -> WeightSource:
    """Find the weights of one run to export.

    Args:
        expdir: Experiment directory.
        run: Name of the run.
        checkpoint: `final`, `latest`, `best` (lowest error rate on the dev clips, the latest if several are equal), or
            the name of a checkpoint.

    Returns:
        The weights.

    Raises:
        UserError: The run or the weights do not exist, or the model is not of type `arkasr`.
    """
    folder, config = Path(expdir) / run, _read_config(expdir, run)
    found = {path.name: WeightSource(run, path.name, path, int(path.name.split("-")[1]), config)
             for path in complete_checkpoints(folder / "checkpoints")}  # fmt: skip
    if (folder / FINAL / "config.json").is_file():
        found[FINAL] = WeightSource(run, FINAL, folder / FINAL, run_records.last_step(expdir, run, config), config)
    names = ", ".join(found) or "none"
    if checkpoint == "best":
        return _best(expdir, run, list(found.values()), names)
    if checkpoint == "latest" and found:
        return list(found.values())[-1]
    if checkpoint in found:
        return found[checkpoint]
    if checkpoint in (FINAL, "latest"):
        alternative = f", or name a checkpoint with --checkpoint ({names})" if found else ""
        raise UserError(f"{folder / FINAL}: no trained model here; run the recipe with --stage 3 first{alternative}")
    raise UserError(f"{folder / 'checkpoints'}: no checkpoint {checkpoint!r}; use one of: {names}")


def _best(expdir: str, run: str, sources: list[WeightSource], names: str) -> WeightSource:
    rows = run_records.read_metrics(expdir, run)
    errors = {row["step"]: row["dev_error"] for row in rows if row.get("dev_error") is not None}
    measured = [source for source in sources if source.step in errors]
    if not measured:
        raise UserError(
            f"{Path(expdir) / run}: no weights ({names}) with a measured error rate on the dev clips; set "
            "train.save_every to a multiple of train.eval_every, or name a checkpoint with --checkpoint"
        )
    return min(measured, key=lambda source: (errors[source.step], -source.step, source.name != FINAL))
