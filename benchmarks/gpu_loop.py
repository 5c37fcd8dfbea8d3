"""Section `loop` of `gpu.py`: steps of `arkasr train` with egs/conf/paper.yaml, random weights and noise."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Iterator
from pathlib import Path

import fresh
import soundfile
import torch
from gpu_bench import ROOT, Bench
from gpu_check import AGAINST_FLOAT32, same_losses, same_transcripts, worst_gap
from gpu_rollout import prompts_of
from gpu_table import Row
from lhotse import CutSet, Recording, SupervisionSegment
from measured import seconds

from arkasr import SAMPLE_RATE, generate
from arkasr.config.load import load_config
from arkasr.config.schema import Config
from arkasr.model.sharding import gathered
from arkasr.planning.assumptions import Assumptions
from arkasr.planning.plan import forecast
from arkasr.training.ranks import Ranks
from arkasr.training.trainer import Trainer

CONF = ROOT / "egs" / "conf" / "paper.yaml"
WARM_UP, BATCHES = 2, 3  # steps before the timed ones, and batches in an epoch
PHASES = ("data", "rollout", "teacher", "student", "backward", "optimizer")
WAYS = {"no checkpointing": "none", "checkpointed blocks": "blocks"}  # fsdp.activation_checkpointing


def write_corpus(folder: Path, count: int, length: float) -> None:
    """Write clips of noise and their manifest, opd.jsonl.gz.

    Args:
        folder: A new folder.
        count: Number of clips.
        length: Length of each clip in seconds.
    """
    folder.mkdir()
    cuts = []
    for number, waveform in enumerate(fresh.clips(count, length)):
        path, name = folder / f"{number}.wav", f"clip-{number}"
        soundfile.write(path, waveform.numpy(), SAMPLE_RATE)
        cut = Recording.from_file(path, recording_id=name).to_cut().with_id(name)
        cut.supervisions = [SupervisionSegment(name, name, 0.0, cut.duration, text="noise", language="English")]
        cuts.append(cut)
    CutSet.from_cuts(cuts).to_file(folder / "opd.jsonl.gz")


def settings(bench: Bench, checkpointing: str) -> Config:
    """Return the configuration of run `base_opd` of paper.yaml, with the models of the benchmark.

    Args:
        bench: The inputs. Its folder holds the models.
        checkpointing: Value of `fsdp.activation_checkpointing`.
    """
    numbers, folder = bench.numbers, bench.folder
    words = {
        "model.path": folder / "student",
        "teacher.options.path": folder / "teacher",
        "data.max_cuts": numbers.clips,
        "data.max_seconds": numbers.clips * numbers.seconds,
        "data.num_workers": 4 if bench.device == "cuda" else 0,
        "distill.top_k": numbers.top_k,
        "distill.diagnose_every": 0,
        "rollout.max_new_tokens": numbers.cap,  # as in the published launcher
        "train.steps": 1_000_000,  # so that no checkpoint is due
        "train.threads": torch.get_num_threads(),
        "fsdp.activation_checkpointing": checkpointing,
    }
    overrides = [f"{key}={value}" for key, value in words.items()]
    return load_config(CONF, "base_opd", str(folder / "exp"), str(folder / "data"), overrides)


def predicted(bench: Bench, name: str, config: Config) -> Row:
    """Return what `arkasr plan` predicts for a way, with its own assumptions about the GPU.

    Args:
        bench: The inputs.
        name: Name of the way.
        config: Its configuration.
    """
    numbers = bench.numbers
    lengths = {"clip_seconds": numbers.seconds, "tokens_per_second": numbers.cap / numbers.seconds}
    found = forecast(str(CONF), config, Assumptions(gpus=1, max_length_ratio=1.0, batch_fill=1.0, **lengths))
    memory = 2**30 * max(found["memory_gib"]["peaks"].values())
    return Row("loop", f"{name}: prediction of arkasr plan", found["step"]["seconds"], "s per step", memory=memory)


def loop(bench: Bench) -> Iterator[Row]:
    """Train with and without checkpointed activations. The ratio is the first way's time per step / this one.

    Args:
        bench: The inputs.

    Yields:
        Transcripts, phases and step of each way, and the comparison of the losses of the first steps.
    """
    write_corpus(bench.folder / "data", BATCHES * bench.numbers.clips, bench.numbers.seconds)
    ranks = Ranks.of(settings(bench, "none"))
    bench.ending.callback(ranks.close)
    times, losses = [], []
    for name, checkpointing in WAYS.items():
        training = None  # frees the memory of the way before
        gc.collect()
        training = Training(bench, name, settings(bench, checkpointing), ranks)
        yield Row("loop", f"{name}: transcripts before the first step", result=training.transcripts())
        rows = training.rows()
        times.append(rows[-1].value)
        losses.append(training.steps[0]["loss"])
        rows[-1].ratio = times[0] / times[-1]
        yield from [*rows, predicted(bench, name, training.config)]
    bench.profile_later(training.step, rows[-1], times[-1], graphs=True)
    yield Row("loop", "loss of the first step, both ways", result=same_losses(*losses, "bfloat16"))


class Training:
    """A training run of which some steps are measured.

    Args:
        bench: The inputs.
        name: Name of the run, for the rows.
        config: Its configuration.
        ranks: The process.

    Attributes:
        steps: Metrics of the steps so far.
    """

    def __init__(self, bench: Bench, name: str, config: Config, ranks: Ranks):
        self.bench, self.name, self.cuda = bench, name, bench.device == "cuda"
        folder = bench.folder / "exp" / name.replace(" ", "-")
        folder.mkdir(parents=True)
        if self.cuda:
            torch.cuda.empty_cache()
        self.before = torch.cuda.memory_allocated() if self.cuda else 0
        self.config, self.trainer, self.steps = config, Trainer(config, folder, ranks), []
        self.batches = iter(self.trainer.batches)

    @torch.no_grad()
    def transcripts(self) -> str:
        """Compare the transcripts of the run's student with those of the plain model, which has the same weights.

        Returns:
            A result for the table.
        """
        numbers, plain, clips = self.bench.numbers, self.bench.student, self.bench.inputs.batch.waveforms
        caps = [numbers.cap] * len(clips)
        transcribe = lambda lm: generate(lm, prompts_of(lm, clips), caps, numbers.top_k)  # noqa: E731
        base, student = transcribe(plain), self.trainer.student
        with gathered(student):
            found = student(transcribe)
        gap = worst_gap(plain, prompts_of(plain, clips), caps, found)
        same = plain.head.dtype == torch.bfloat16  # as the run computes
        return same_transcripts(base, found, gap, "bfloat16", None if same else AGAINST_FLOAT32)

    def step(self) -> None:
        """Take one step."""
        with self.trainer.phases("step"):
            self.steps.append(self.trainer.take_step(self.batches))
        self.trainer.step += 1

    def rows(self) -> list[Row]:
        """Take the steps.

        Returns:
            One row per phase, and that of the whole step.
        """
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        repeats, device = self.bench.repeats, self.bench.device
        row = Row("loop", self.name, unit="s per step")
        row.value = statistics.median([seconds(self.step, device) for _ in range(WARM_UP + repeats)][WARM_UP:])
        row.memory = torch.cuda.max_memory_allocated() - self.before if self.cuda else None
        timed = self.steps[WARM_UP:]
        row.limit = statistics.median(each["mfu"] for each in timed) if "mfu" in timed[-1] else None
        row.result = f"{timed[-1]['clips']:.0f} clips, loss {timed[-1]['loss']:.4f}"
        phases = {name: statistics.median(each.get(f"time/{name}", 0.0) for each in timed) for name in PHASES}
        shares = {name: f"{value / row.value:.1%} of the step" for name, value in phases.items()}
        return [Row("loop", f"{self.name}: {name}", phases[name], "s", result=shares[name]) for name in PHASES] + [row]
