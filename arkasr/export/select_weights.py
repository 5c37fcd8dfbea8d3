"""Select which weights to export: final, latest, best on the dev clips, or one checkpoint."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from arkasr.config.load import read_config
from arkasr.config.schema import Config
from arkasr.errors import UserError
from arkasr.evaluation import run_records
from arkasr.model.checkpoint_files import complete_checkpoints, load_adapted, load_checkpoint
from arkasr.model.loading import load_speech_lm
from arkasr.model.lora_files import ADAPTER, write_adapter
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.model.weight_digests import check_digests, digested_files
from arkasr.utils.console import log
from arkasr.utils.hub import is_hub_id

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

    def write_adapter(self, folder: Path, lm: SpeechLM) -> None:
        """Write the LoRA adapter of these weights in PEFT's layout, with the tokenizer.

        Args:
            folder: Existing folder to write to.
            lm: The merged model of these weights.

        Raises:
            UserError: The run has no adapter, or see `load_checkpoint`.
        """
        base = self.config.model.path
        if not self.config.model.adapted:
            raise UserError(f"{self.folder}: no LoRA adapter (model.lora.rank is 0); export the whole model")
        if base and not is_hub_id(base):
            log(f"warning: the adapter of {self.run} needs the local folder {base}; share it too, or the merged model")
        lm.tokenizer.save_pretrained(folder)
        if self.name == FINAL:
            check_digests(digested_files(self.folder / ADAPTER))
            shutil.copytree(self.folder / ADAPTER, folder, dirs_exist_ok=True)
        else:
            adapted = load_adapted(self.folder)
            write_adapter(folder, adapted, adapted.hf.state_dict(), base)


def _read_config(expdir: str, run: str) -> Config:
    path = Path(expdir) / run / "config.yaml"
    if not path.is_file():
        others = ", ".join(sorted(found.parent.name for found in Path(expdir).glob("*/config.yaml"))) or "none"
        raise UserError(f"{path.parent}: no such run (no config.yaml); existing runs: {others}")
    return read_config(path)


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
        UserError: The run or the weights do not exist.
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


def _is_mean(source: WeightSource) -> bool:
    """Return whether these are not the weights of their step, whose error rate was measured."""
    return source.name == FINAL and (source.config.train.final, source.config.train.average) != ("last", 1)


def _best(expdir: str, run: str, sources: list[WeightSource], names: str) -> WeightSource:
    rows = run_records.read_metrics(expdir, run)
    errors = {row["step"]: row["dev_error"] for row in rows if row.get("dev_error") is not None}
    measured = [source for source in sources if source.step in errors and not _is_mean(source)]
    if not measured:
        raise UserError(
            f"{Path(expdir) / run}: no weights ({names}) with a measured error rate on the dev clips; set "
            "train.save_every to a multiple of train.eval_every, or name a checkpoint with --checkpoint"
        )
    return min(measured, key=lambda source: (errors[source.step], -source.step, source.name != FINAL))
