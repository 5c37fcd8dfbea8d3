"""Which weights of a run are meant: its last ones, its newest, its best on the dev clips, or those of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from arkasr.config.load import read_config
from arkasr.config.schema import Config
from arkasr.errors import UserError
from arkasr.evaluation import results_io
from arkasr.model.checkpoint_files import complete_checkpoints, load_checkpoint
from arkasr.model.loading import load_speech_lm
from arkasr.model.speech_lm.auto import SpeechLM

FINAL = "final"


@dataclass(frozen=True)
class WeightSource:
    """Weights to export: those of a run after `step` steps; name: `final`, or the checkpoint's."""

    run: str
    name: str
    folder: Path
    step: int
    config: Config

    def load(self) -> SpeechLM:
        """Load them as they were trained, on the CPU."""
        dtype = self.config.model.dtype
        return load_speech_lm(str(self.folder), dtype) if self.name == FINAL else load_checkpoint(self.folder, dtype)


def _read_config(expdir: str, run: str) -> Config:
    path = Path(expdir) / run / "config.yaml"
    if not path.is_file():
        others = ", ".join(sorted(found.parent.name for found in Path(expdir).glob("*/config.yaml"))) or "none"
        raise UserError(f"{path.parent}: no such run (no config.yaml); there are: {others}")
    config = read_config(path)
    if config.model.type != "arkasr":
        raise UserError(
            f"{path.parent}: the run trained a {config.model.type}, and only Ark-ASR's own are exported; "
            f"{path.parent / FINAL} is a folder that transformers reads as it is"
        )
    return config


def find_source(expdir: str, run: str, checkpoint: str) -> WeightSource:
    """Find weights of a run: `final`, `latest`, `best` (lowest error on the dev clips) or the name of a checkpoint.

    Raises UserError where there is no such run, it trained another kind of model, or there are no such weights.
    """
    folder, config = Path(expdir) / run, _read_config(expdir, run)
    found = {path.name: WeightSource(run, path.name, path, int(path.name.split("-")[1]), config)
             for path in complete_checkpoints(folder / "checkpoints")}  # fmt: skip
    if (folder / FINAL / "config.json").is_file():
        found[FINAL] = WeightSource(run, FINAL, folder / FINAL, config.train.steps, config)
    names = ", ".join(found) or "none"
    if checkpoint == "best":
        return _best(expdir, run, list(found.values()), names)
    if checkpoint == "latest" and found:
        return list(found.values())[-1]
    if checkpoint in found:
        return found[checkpoint]
    if checkpoint in (FINAL, "latest"):
        instead = f", or name a checkpoint with --checkpoint ({names})" if found else ""
        raise UserError(f"{folder / FINAL}: no trained model here; run the recipe with --stage 3 first{instead}")
    raise UserError(f"{folder / 'checkpoints'}: no checkpoint {checkpoint!r}; there are: {names}")


def _best(expdir: str, run: str, sources: list[WeightSource], names: str) -> WeightSource:
    errors = {row["step"]: row["dev_error"] for row in results_io.read_metrics(expdir, run) if "dev_error" in row}
    measured = [source for source in sources if source.step in errors]
    if not measured:
        raise UserError(
            f"{Path(expdir) / run}: none of its weights ({names}) has an error rate on the dev clips: make "
            "train.save_every a multiple of train.eval_every, or name one with --checkpoint"
        )
    return min(measured, key=lambda source: (errors[source.step], -source.step))
