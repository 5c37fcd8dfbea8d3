"""`arkasr train`: train one run, or resume it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from transformers.utils import logging as transformers_logging

from arkasr.config.load import load_config
from arkasr.config.schema import Config
from arkasr.errors import UserError
from arkasr.plugins import registry
from arkasr.training.cost import record_cost
from arkasr.training.final_model import save_final, write_final
from arkasr.training.ranks import Ranks
from arkasr.training.run_record import record_final, run_directory
from arkasr.training.setup import load_parent
from arkasr.training.trainer import Trainer
from arkasr.training.watchdog import Watchdog
from arkasr.utils.console import log
from arkasr.utils.process import end_with_launcher

__all__ = ["Trainer", "train"]


def train(conf: str, run: str, expdir: str, datadir: str, overrides: list[str]) -> None:
    """Train one run of a configuration into `<expdir>/<run>`, or resume it from its newest checkpoint.

    Args:
        conf: Path of the configuration (YAML).
        run: Name of the run in the configuration.
        expdir: Directory of runs and results.
        datadir: Directory of the prepared data.
        overrides: Words `section.key=value` that override the configuration.

    Raises:
        UserError: Something that you can fix is wrong: configuration, data, checkpoints or plugins.
    """
    end_with_launcher()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    config = load_config(conf, run, expdir, datadir, overrides)
    _check_plugins(config)
    folder = Path(expdir) / run
    ranks = Ranks.of(config)
    if len(set(ranks.gather(registry.fingerprint()))) > 1:
        raise UserError(
            "the ranks of this run have different plugins; compare the output of `arkasr plugins` on all machines"
        )
    if ranks.first and (named := _other_start(config, conf, run, expdir, datadir, overrides)):
        log(
            f"warning: {run} starts from {config.model.path}, as the command says, and not from {named}, as {conf} "
            "says; to change only where the first run starts, set model.path in a configuration file"
        )
    with run_directory(folder, config, ranks) as finished:
        if finished:
            log(f"{folder}: already trained; nothing to do")
        elif config.objective == "none":
            _copy(config, folder, ranks)
        else:
            _train(config, folder, ranks)
    ranks.close()


def _other_start(config: Config, conf: str, run: str, expdir: str, datadir: str, overrides: list[str]) -> str:
    """Return the run that the configuration continues, if `model.path` of the command replaces it, or ""."""
    words = [word for word in overrides if not word.startswith("model.path=")]
    with suppress(UserError):  # a run may be valid with this word only
        named = load_config(conf, run, expdir, datadir, words).model.path
        if named != config.model.path and Path(expdir) in Path(named).parents:
            return named
    return ""


def _copy(config: Config, folder: Path, ranks: Ranks) -> None:
    if ranks.first:
        lm = load_parent(config)
        lm.set_generation(config.decode.max_new_tokens)
        write_final(folder / "final", lm, lm.state_dict(), config.model.path)
        log(f"{folder / 'final'}: written without training (objective: none)")
    ranks.barrier()


def _train(config: Config, folder: Path, ranks: Ranks) -> None:
    trainer = Trainer(config, folder, ranks)
    trainer.resume()
    with trainer.preemption:  # also around save_final, so that a late signal does not interrupt the writing
        with Watchdog(ranks, trainer.phases, config.train.hang_seconds):
            done = trainer.run()
        if done:
            names = trainer.load_final_weights()
            if ranks.first:
                record_cost(folder / "run.json", trainer.cost)
                record_final(folder / "run.json", trainer.step, names)
            trainer.student.set_generation(config.decode.max_new_tokens, _trained_seconds(trainer))
            save_final(folder / "final", trainer.student, ranks, config.model.path)
    if done:
        log(f"{folder / 'final'}: written")
    else:
        log(
            f"{folder}: stopped by a signal after step {trainer.step}, which is saved; run the same command again to "
            "resume"
        )


def _trained_seconds(trainer: Trainer) -> float | None:
    """Return the longest clip of the run and of those before it. None if the model's earlier training is not known."""
    before = trainer.student.trained_seconds
    if trainer.config.model.path and before is None:
        return None
    return round(max(before or 0.0, trainer.batches.longest_seconds), 3)


def _check_plugins(config: Config) -> None:
    """Refuse unknown plugin names and wrong options before the run has a directory."""
    if config.objective == "opd":
        for kind, plugin in (("teacher", config.teacher), ("token_mapper", config.mapper), ("loss", config.loss)):
            registry.check_plugin(kind, plugin.name, plugin.options)
