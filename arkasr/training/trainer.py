"""The training loop. Supervised training, teacher data and distillation differ only in their objective and data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from arkasr.config.schema import Config
from arkasr.data.batches import SILENCE, Batch
from arkasr.data.sampling import TrainingBatches
from arkasr.distill.metrics import MAXIMA, read_sums
from arkasr.plugins import registry
from arkasr.training.checkpoint import Checkpoints
from arkasr.training.clip_counts import CutRollouts, FailedClips
from arkasr.training.cost import WallTime
from arkasr.training.dev_error import DevError
from arkasr.training.early_stopping import EarlyStopping
from arkasr.training.final_weights import load_final_weights
from arkasr.training.frozen_parts import FrozenParts
from arkasr.training.gradients import gradient_norm, gradients, scale_and_clip
from arkasr.training.guards import Guards
from arkasr.training.length import RunLength
from arkasr.training.metrics_log import MetricsLog
from arkasr.training.objectives import MicroLoss, make_objective
from arkasr.training.optimizer import complete_state, make_optimizer, restore_schedule, unscaled_rate
from arkasr.training.preemption import Preemption
from arkasr.training.ranks import Ranks
from arkasr.training.selection import Selection
from arkasr.training.setup import make_model
from arkasr.training.throughput import Throughput
from arkasr.utils.console import log
from arkasr.utils.timing import Phases

LOADER_SHARE = 0.9  # of train.hang_seconds: loaders time out first, because their message is more precise


class Trainer:
    """One training run: the model, and everything that is saved and restored with it.

    Args:
        config: The run's configuration.
        folder: The run's directory, `<expdir>/<run>`.
        ranks: The processes of the run.

    Attributes:
        step: Number of optimizer steps taken, including skipped steps.
        hours: Hours of audio read since the run began, over all ranks.
        tokens: Tokens or scored positions since the run began, over all ranks.
        length: The length of the run, and how much of it is done.
    """

    def __init__(self, config: Config, folder: Path, ranks: Ranks):
        self.config, self.folder, self.ranks, self.wall_time = config, folder, ranks, WallTime()
        self.student = make_model(config, folder, ranks)
        self.frozen = FrozenParts(config, self.student)
        self.objective = make_objective(config, self.student, ranks.mesh)
        teacher = getattr(getattr(self.objective, "opd", None), "teacher", None)
        self.throughput = Throughput(config, self.student, teacher, ranks.world_size)
        self.length = RunLength(config.train, config.optim.warmup_steps)
        self.optimizer, self.schedule = make_optimizer(config.optim, self.length, self.student)
        timeout = LOADER_SHARE * config.train.hang_seconds
        place, on_gpu = (ranks.rank, ranks.world_size), ranks.device.type == "cuda"
        self.batches = TrainingBatches(
            config.data, config.seed, *place, timeout, on_gpu, config.needs_text, config.augment
        )
        self.selection, self.stopping = Selection.of(config.train), EarlyStopping(config.train.patience)
        keep = config.train.keep, config.train.keep_best
        self.checkpoints = Checkpoints(folder / "checkpoints", ranks, *keep, self.selection)
        self.phases, self.preemption = Phases(ranks.device.type), Preemption()
        self.guards = Guards(folder, ranks, config.train)
        self.failed, self.cut = FailedClips(config.data.max_failed_share, ranks), CutRollouts()
        self.step, self.hours, self.tokens = 0, 0.0, 0.0

    def resume(self) -> None:
        """Restore the newest checkpoint, if there is one."""
        with self.frozen.released():
            state = self.checkpoints.load_newest(self.student, self.optimizer)
        if state is not None:
            self.step, self.hours, self.tokens = (state[k] for k in ("step", "hours", "tokens"))
            self._restore_length(state)
            restore_schedule(self.optimizer, self.schedule, state["schedule"])
            self.batches.load_state_dict(state["batches"])
            self.guards.load_state_dict(state["guards"])
            self.failed.load_state_dict(state["failed"])
            self.cut.load_state_dict(state.get("cut_rollouts", {}))
            self.stopping.load_state_dict(state.get("stopping", {}))
            self._restore_cost(state.get("cost", {}))
        self.guards.forget_after(self.step)

    def _restore_cost(self, cost: dict[str, float | None]) -> None:
        """Restore what the steps so far have cost. Checkpoints of earlier versions do not know it."""
        self.wall_time.before = cost.get("wall_seconds")
        self.throughput.total = cost.get("flops") if self.throughput.known else None

    @property
    def cost(self) -> dict[str, float | None]:
        """The cost of the run so far, with the keys of `arkasr.training.cost`."""
        known = {"flops": self.throughput.total, "wall_seconds": self.wall_time.seconds}
        return known | {"hours": self.hours, "tokens": self.tokens}

    def _restore_length(self, state: dict[str, Any]) -> None:
        """Restore how much of the run is done. Checkpoints of earlier versions know the hours that were read."""
        old = {"drawn": self.hours, "warm_hours": 0.0, "epoch_hours": 0.0}
        self.length.load_state_dict(state.get("length", old), self.step)
        self._measure_epoch()

    def _measure_epoch(self) -> None:
        """Find out the hours of one epoch, once per run, on rank 0. All ranks must call this."""
        if not self.length.epoch_hours:
            exact = self.length.unit == "epochs"
            hours = self.batches.epoch_hours(exact) if self.ranks.first else 0.0
            self.length.epoch_hours = self.ranks.gather(hours)[0]

    def save(self, dev_error: float | None = None) -> None:
        """Start to write a checkpoint of the current step.

        Args:
            dev_error: The dev error rate, if it was measured at this step. `train.keep_best` and `train.final` select
                by it.
        """
        extra = {
            "schedule": self.schedule.state_dict(),
            "batches": self.batches.state_dict(),
            "guards": self.guards.state_dict(),
            "failed": self.failed.state_dict(),
            "cut_rollouts": self.cut.state_dict(),
            "stopping": self.stopping.state_dict(),
            "hours": self.hours,
            "tokens": self.tokens,
            "length": self.length.state_dict(),
            "cost": self.cost,
            "dev_error": dev_error,
            "config": asdict(self.config),
            "plugins": registry.listing(),
        }
        with self.phases("save"), self.frozen.released():
            complete_state(self.optimizer)
            self.checkpoints.save(self.step, self.student, self.optimizer, extra)

    def run(self) -> bool:
        """Train to the end of the run, with logging, evaluation and checkpoints.

        Returns:
            True if the end was reached, False if a signal stopped the run.

        Raises:
            UserError: Too many clips could not be read, or steps were skipped.
        """
        self._measure_epoch()
        dev = DevError(self.config, self.ranks, self.phases)
        metrics = MetricsLog(self.folder, self.config.run, self.length, self.ranks.first)
        try:
            self._take_steps(dev, metrics)
            with self.phases("save"):
                self.checkpoints.wait()
        except BaseException:
            with suppress(BaseException):  # raise the error that ended the run, not one that followed from it
                self.checkpoints.wait()
            raise
        finally:
            metrics.close()
        return self.ended

    @property
    def ended(self) -> bool:
        """Whether the run is as long as it should be, or has ended early (`train.patience`)."""
        return self.length.reached or self.stopping.reached

    def _take_steps(self, dev: DevError, metrics: MetricsLog) -> None:
        settings, batches = self.config.train, iter(self.batches)
        last, stop, dev_error = self.ended, False, None
        unsaved = not last
        while not (last or stop):
            with self.phases("step"):
                row = self.take_step(batches)
            self.step, last = self.length.step, self.length.reached
            stop = row.pop("asked_to_stop") > 0
            due = {name: _is_due(self.step, getattr(settings, f"{name}_every")) for name in ("log", "eval", "save")}
            dev_error = None
            if due["eval"] or (last and settings.eval_every):
                rates, metrics.dev = dev.measure(self.student)
                row, dev_error = row | rates, rates.get("dev_error")
                if due["eval"]:
                    self.stopping.add(dev_error)
                    last = self.ended
            metrics.add(self.step, row, due=due["log"] or "dev_error" in row or last)
            if not last and (stop or due["save"]) and self.failed.allow_checkpoint(self.step):
                self.save(dev_error)
            self.checkpoints.poll()
            metrics.advance(row)
        if last:
            self._check_result()
            if self.stopping.reached:
                log(f"{self.folder}: ends after step {self.step}: {self.stopping.reason}")
            if unsaved:  # so that the run can be extended, and a lost `final` be written again
                self.save(dev_error)

    def load_final_weights(self) -> list[str]:
        """Set the model to the weights of the final model. Call this once the run has ended, on all ranks.

        Returns:
            The names of the checkpoints that it is the mean of. Empty if it is the model of the last step.

        Raises:
            UserError: See `arkasr.training.final_weights.load_final_weights`.
        """
        with self.frozen.released():
            return load_final_weights(self.checkpoints, self.selection, self.student, self.step)

    def _check_result(self) -> None:
        """Check after the last step that the run has learned from the data it was given."""
        self.guards.require_steps(self.step, self.failed)
        self.failed.check()
        self.failed.report()
        self.cut.report()
        self.frozen.report(self.step)

    def take_step(self, batches: Iterator[Batch]) -> dict[str, float]:
        """Take one optimizer step over `train.accumulate` micro-batches.

        Losses are sums. Gradients are divided by the count over all ranks and micro-batches, so the step does not
        depend on how the global batch is split. The guards may skip the update. The host waits for the device once,
        after all backward passes: it then reads losses, metrics and the gradient's norm together.

        Args:
            batches: Iterator over the micro-batches of this rank.

        Returns:
            The metrics of the step by name.
        """
        self._measure_epoch()
        self.frozen.begin_step(self.step + 1)
        self.throughput.config = self.frozen.present_config
        micros: list[dict[str, Tensor | float]] = []
        clips: list[str] = []
        for _ in range(self.config.train.accumulate):
            with self.phases("data"):
                batch = next(batches)
            micro = self.objective(self.student, batch if batch.ids else SILENCE, self.phases, self.step + 1)
            micro = micro if batch.ids else micro.unweighted()
            with self.phases("backward"):
                micro.total.backward()
            micros.append(_values(micro, batch))
            clips += batch.ids
            self.failed.note(batch.failures)
        with self.phases("optimizer"):
            grads = gradients(self.student.parameters())
            sums, norm = _read(micros, gradient_norm(grads))
        sums = self.ranks.reduce(sums | self._rank_values())
        self.length.add(sums["drawn"] / 3600, sums["covered"] / 3600)
        self.failed.add(sums["failed"], sums["num_clips"])
        self.cut.add(sums)
        learning_rate = unscaled_rate(self.config.optim, self.schedule)
        with self.phases("optimizer"):
            norm = self._update(grads, norm, sums, clips)
        return self._row(sums, norm, learning_rate)

    def _rank_values(self) -> dict[str, float]:
        """Return values of this rank that travel with a step's sums. Times count from the previous call."""
        asked = {"asked_to_stop": float(self.preemption.requested)}
        return asked | self.phases.take() | {"memory/peak_gib": self.ranks.peak_memory() / 2**30}

    def _update(self, grads: list[Tensor], norm: float, sums: dict[str, float], clips: list[str]) -> float:
        """Scale, clip and apply the gradients of this norm. Return the norm after scaling, before clipping."""
        # Undo the mean over ranks of FSDP2. The sum over ranks is divided by the global count.
        scale = self.ranks.world_size / max(sums["count"], 1.0)
        unscaled, norm = norm, norm * scale
        unread = self.failed if sums["failed"] and not sums["num_clips"] else None
        if self.guards.allow(self.step + 1, sums["loss"], sums["count"], norm, clips, unread):
            scale_and_clip(grads, scale, unscaled, self.config.optim.clip)
            self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _row(self, sums: dict[str, float], norm: float, learning_rate: float) -> dict[str, float]:
        """Return the metrics of one step by name, as docs/metrics.md lists them."""
        self.hours += sums["seconds"] / 3600
        self.tokens += sums["count"]
        scored = sums["count"] > 0
        return {
            **{name: value for name, value in sums.items() if name.startswith(("asked_", "time/", "memory/"))},
            **({"loss": sums["loss"] / sums["count"]} if scored else {}),
            **self.objective.rates(sums),
            **self.throughput(sums),
            **({"gradient_norm": norm} if scored else {}),
            "skipped_steps": float(self.guards.skipped),
            "learning_rate": learning_rate,
            "tokens": sums["count"],
            "clips": sums["num_clips"],
            "failed_clips": sums["failed"],
            "hours_seen": self.hours,
            "epochs_seen": self.length.epochs,
            "tokens_seen": self.tokens,
        }


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _values(micro: MicroLoss, batch: Batch) -> dict[str, Tensor | float]:
    """Return all values of one micro-batch by name. Tensors are still on the device."""
    return {
        **micro.sums,
        "loss": micro.total.detach(),
        "count": micro.count,
        "seconds": batch.seconds,
        "drawn": batch.drawn,
        "covered": batch.covered,
        "num_clips": len(batch.ids),
        "failed": batch.num_failed,
    }


def _read(micros: list[dict[str, Tensor | float]], norm: Tensor) -> tuple[dict[str, float], float]:
    """Read the values of all micro-batches and the norm at once. Values in `MAXIMA` are compared, not added."""
    numbers = read_sums({"norm": norm} | {(i, name): v for i, micro in enumerate(micros) for name, v in micro.items()})
    sums: dict[str, float] = {}
    for i, micro in enumerate(micros):
        for name in micro:
            value = numbers[i, name]
            sums[name] = max(sums.get(name, value), value) if name in MAXIMA else sums.get(name, 0.0) + value
    return sums, numbers["norm"]
