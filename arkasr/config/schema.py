"""The schema of a config: every key that a YAML may hold, its type, its default and its unit.

A free mapping (`options`, `sizes`) names in its metadata the key it belongs to: when a later layer changes that
key, what earlier layers put into the mapping no longer applies and is dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal

SOURCES = ("student", "teacher", "reference")  # of the transcripts that distillation scores
PARTS = ("encoder", "adapter", "decoder")  # of a model, as `model.freeze` names them
COLDEST, WARMEST = 0.01, 100.0  # temperatures: logits over them, up to 1e3 and -inf, stay numbers in float32


def _check_numbers(section: Any, *endless: str) -> None:
    """Refuse nan and infinities, but for keys in `endless`, where inf stands for no limit."""
    for key in (item.name for item in fields(section)):
        value = getattr(section, key)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not (math.isfinite(number) or (number == math.inf and key in endless)):
                raise ValueError(f"{key}={value}: must be finite")


def _check_cap(max_new_tokens: int) -> None:
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens}: at least 1")


@dataclass
class PluginConfig:
    """A plugin by its registered name, and the options its own dataclass declares."""

    name: str = ""  # the registered name; `arkasr plugins` lists them
    options: dict[str, Any] = field(default_factory=dict, metadata={"belongs_to": "name"})  # the plugin's own


@dataclass
class ModelConfig:
    """The model that a run trains."""

    type: Literal["arkasr", "qwen3_asr"] = "arkasr"  # the student, or a teacher trained here
    path: str = ""  # folder or Hub id to start from; empty: a model put together of `encoder`, `decoder` and `sizes`
    allow_pickle: bool = False  # read weights of `path` from pytorch_model.bin where there are no safetensors
    encoder: str = ""  # folder or Hub id of a Whisper, GLM-ASR or Ark-ASR whose audio encoder it takes
    decoder: str = ""  # folder or Hub id of a Qwen2 or Qwen2.5 which becomes its decoder, with its tokenizer
    sizes: dict[str, Any] = field(
        default_factory=dict, metadata={"belongs_to": "type"}
    )  # `audio`, `text`: of fresh parts
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the weights
    freeze: list[str] = field(default_factory=list)  # parts that are not trained: `encoder`, `adapter`, `decoder`

    def __post_init__(self):
        unknown = sorted(set(self.freeze) - set(PARTS))
        if unknown or set(self.freeze) == set(PARTS):
            raise ValueError(f"freeze={self.freeze}: name some of {', '.join(PARTS)}, but not all")


@dataclass
class TokenizerConfig:
    """The tokenizer trained for a fresh model; `model.path` and `model.decoder` bring their own."""

    path: str = ""  # folder or Hub id of a tokenizer to take instead; as a decoder's, it gets Ark-ASR's special tokens
    kind: Literal["sentencepiece", "byte_bpe"] = "sentencepiece"  # of the tokenizer trained
    vocab_size: int = 256  # learnt tokens beside bytes and special tokens; byte_bpe counts its 256 bytes
    text: str = "{datadir}/train.jsonl.gz"  # cuts whose transcripts it is trained on


@dataclass
class DataConfig:
    """What is trained on and how batches are made; lengths are seconds of audio."""

    train: str = "{datadir}/train.jsonl.gz"  # cuts to train on: a manifest, a folder of shards, or a pattern
    dev: str = "{datadir}/dev.jsonl.gz"  # cuts for the error rate while training
    hours: float = 0.0  # train on this much of it, drawn at random once; 0: all
    max_seconds: float = 160.0  # audio a batch and rank
    max_cuts: int = 40  # clips a batch and rank
    num_buckets: int = 10  # groups of like length
    num_workers: int = 0  # loader processes a rank
    lazy: Literal["auto", "always", "never"] = "auto"  # read manifests line by line; auto: from 64 MiB of them on
    buffer_clips: int = 20000  # clips held ready, among which batches are drawn
    resume: Literal["exact", "reseed"] = "exact"  # deal the epoch's clips anew, or go on in a new order at once
    max_failed_share: float = 0.05  # of clips that cannot be read, above which the run ends
    min_clip_seconds: float = 0.1  # shorter clips are dropped and counted
    max_clip_seconds: float = 30.0  # longer clips are dropped and counted

    def __post_init__(self):
        _check_numbers(self, "max_seconds", "max_clip_seconds")
        if self.buffer_clips < 1:
            raise ValueError(f"buffer_clips={self.buffer_clips}: at least 1")
        if not 0 <= self.max_failed_share <= 1:
            raise ValueError(f"max_failed_share={self.max_failed_share}: must be at least 0 and at most 1")


@dataclass
class OptimConfig:
    """AdamW and its learning-rate schedule."""

    lr: float = 1e-4  # peak
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])  # of AdamW
    weight_decay: float = 0.005  # on matrices only
    clip: float = 1.0  # largest global gradient norm; .inf: no limit
    warmup_steps: int = 1000  # of linear rise to the peak
    min_lr_ratio: float = 0.1  # floor of the cosine, as a share of the peak
    schedule: Literal["cosine", "constant"] = "cosine"  # after the warm-up

    def __post_init__(self):
        _check_numbers(self, "clip")


@dataclass
class TrainConfig:
    """The loop; counts are optimizer steps."""

    steps: int = 1000  # the run is done after these
    accumulate: int = 1  # batches a step and rank
    log_every: int = 1
    eval_every: int = 500  # the error rate on dev clips; 0: never
    eval_clips: int = 100  # of the dev set, for the error rate while training
    save_every: int = 1000  # a checkpoint
    keep: int = 3  # checkpoints kept: the newest
    keep_best: int = 1  # and those of lowest dev error, among steps both saved and evaluated
    ctc_weight: float = 0.0  # share of the auxiliary CTC loss on the adapter's outputs; 0: none
    max_skipped: int = 20  # steps in a row whose loss or gradient was not finite, after which the run ends
    spike_factor: float = 10.0  # times the median of late norms: a gradient above it has its clips named; 0: never
    hang_seconds: float = 1800.0  # without any progress, after which the ranks behind are named and the run ends
    threads: int = 0  # CPU threads a rank; 0: torch decides
    peak_tflops: float = 0.0  # of a worker, dense, in fsdp.compute_dtype, for `mfu`; 0: known GPUs' in bfloat16

    def __post_init__(self):
        _check_numbers(self)


def _check_rate(tokens_per_second: float) -> None:
    if not 0 <= tokens_per_second < math.inf:
        raise ValueError(f"tokens_per_second={tokens_per_second}: must not be below 0, and finite")


@dataclass
class RolloutConfig:
    """The student's own transcripts, made without gradient.

    The policies: `score` scores what was said, `skip` leaves the transcript out, `reference` reads the text instead.
    """

    max_new_tokens: int = 64  # cap of a transcript
    tokens_per_second: float = 12.0  # of audio: bounds a clip's tokens below max_new_tokens; 0: it does not
    temperature: float = 0.0  # 0: greedy; else from 0.01 to 100
    top_p: float = 1.0  # sample among the fewest likeliest tokens that hold this much; 1: among all
    samples: int = 1  # transcripts a clip; more than one needs a temperature
    empty: Literal["score", "skip", "reference"] = "score"  # what becomes of a transcript without a word
    looping: Literal["score", "skip", "reference"] = "score"  # what becomes of one that ends in a repeated pattern

    def __post_init__(self):
        _check_cap(self.max_new_tokens)
        _check_rate(self.tokens_per_second)
        if self.temperature != 0 and not COLDEST <= self.temperature <= WARMEST:
            raise ValueError(f"temperature={self.temperature}: must be 0, or from {COLDEST:g} to {WARMEST:g}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: must be above 0 and at most 1")
        if self.samples < 1 or (self.samples > 1 and self.temperature == 0):
            raise ValueError(f"samples={self.samples}: at least 1, and more only with a temperature above 0")


@dataclass
class DistillConfig:
    """What is distilled on, and how the compared tokens are chosen; tau of equation (1) is an option of the loss."""

    top_k: int = 32  # tokens of each side; their union is compared
    mix: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(SOURCES, 0.0) | {"student": 1.0}
    )  # weights by which each clip draws what is scored: its rollout, the teacher's transcript, the reference text
    diagnose_every: int = 10  # steps between costlier diagnostics (docs/metrics.md); 0: never

    def __post_init__(self):
        unknown = sorted(set(self.mix) - set(SOURCES))
        if unknown:
            raise ValueError(f"mix.{unknown[0]}: no such source; choose among: {', '.join(SOURCES)}")
        weights = self.mix.values()
        if not all(0 <= weight < math.inf for weight in weights) or not sum(weights) > 0:
            raise ValueError(f"mix={self.mix}: weights must not be below 0, and one at least must be above")
        if self.top_k < 1 or self.diagnose_every < 0:
            raise ValueError(f"top_k={self.top_k}, diagnose_every={self.diagnose_every}: at least 1, and at least 0")


@dataclass
class TeacherDataConfig:
    """Which of the teacher's transcripts `arkasr label` makes training data of, before any run trains on them.

    All of them stay in `td_teacher.jsonl`: another choice is made without the teacher.
    """

    max_error: float = 1.0  # largest error rate against the reference (corpus's metric, at most 1 a clip); 1: keep all

    def __post_init__(self):
        if not 0 <= self.max_error <= 1:
            raise ValueError(f"max_error={self.max_error}: must be at least 0 and at most 1")


@dataclass
class DecodeConfig:
    """Greedy decoding of the test sets.

    The bound by audio ends loops in short clips; 50 is twice what fast speech spells in single bytes.
    """

    max_new_tokens: int = 256  # cap of a transcript
    tokens_per_second: float = 50.0  # of audio: bounds a clip's tokens below max_new_tokens; 0: it does not
    max_seconds: float = 160.0  # audio a batch

    def __post_init__(self):
        _check_cap(self.max_new_tokens)
        _check_rate(self.tokens_per_second)
        _check_numbers(self, "max_seconds")


@dataclass
class FsdpConfig:
    """Sharding over ranks, which several processes always do; a single one holds everything."""

    compute_dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; masters keep model.dtype
    reshard_after_forward: bool = True  # free a block's weights after its forward pass, gather them again in backward
    activation_checkpointing: Literal["none", "blocks"] = "none"  # `blocks`: keep their inputs only, compute them twice
    replicate: int = 1  # groups of ranks that hold a whole model each, sharded inside; 0: a group a node
    teacher: Literal["replicate", "shard"] = "replicate"  # a teacher in this process: whole on every rank, or sharded

    def __post_init__(self):
        if self.replicate < 0:
            raise ValueError(f"replicate={self.replicate}: a number of groups, or 0 for a group a node")


@dataclass
class Config:
    """Everything one run needs."""

    run: str = ""  # the run's name; given to `arkasr train --run`, never written in a conf
    seed: int = 1  # of weights, shuffling and sampling
    objective: Literal["sft", "opd"] = "sft"  # cross-entropy on transcripts, or distillation on own transcripts
    model: ModelConfig = field(default_factory=ModelConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    loss: PluginConfig = field(default_factory=lambda: PluginConfig("union_topk_kl"))
    teacher: PluginConfig = field(default_factory=lambda: PluginConfig("qwen3_asr"))
    mapper: PluginConfig = field(default_factory=lambda: PluginConfig("shared_strings"))
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    teacher_data: TeacherDataConfig = field(default_factory=TeacherDataConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    fsdp: FsdpConfig = field(default_factory=FsdpConfig)
