"""The schema of a configuration: every key with its type, its default and its meaning.

The class docstrings are the source of docs/config.md. After a change, run `python docs/make_config.py`.

A field may have these kinds of metadata:

- `belongs_to`: the key that a free mapping (`options`, `sizes`) depends on. If a later layer changes that key, the
  values that earlier layers put into the mapping are dropped.
- `formerly`: the old name of a renamed key. A configuration with the old name is refused with the new name.
- `unlisted`: messages do not suggest this key, because configuration files cannot set it.
- `null_unsets`: a null in this free mapping removes the key that earlier layers set.
- `one_of`: the name of a group of numbers of which exactly one is above 0. A layer that sets one of them sets those of
  earlier layers to 0. A layer that sets two is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal

SOURCES = ("student", "teacher", "reference")  # where a scored transcript may come from
PARTS = ("encoder", "adapter", "decoder")  # of a model, as named in `model.freeze`
LENGTHS = ("steps", "epochs", "hours")  # of the section `train`: the units of the length of a run
CHANNEL_POLICIES = ("auto", "mix", "refuse")
# Limits of a temperature above 0. Logits up to 1e3 and -inf, divided by it, are still numbers in float32.
COLDEST, WARMEST = 0.01, 100.0
LEAST_MASS = 1e-6  # of top_p: less than rounding errors of probabilities in float32
MOST_SEED = 2**31 - 1  # leaves room below 2**32, numpy's limit, for the seeds of other ranks
MOST_PROCESSES = 1024  # of loader processes and threads per rank: more is a mistake that stops the machine
MOST_TOKENS = 100_000  # of one transcript: larger caps cost memory before the first token
MOST_RATE, MOST_DECAY = 1000, 10_000  # of the optimizer: larger products overflow in float32
LONGEST_WAIT = 1e8  # seconds, about three years: threads and collectives cannot wait much longer


def _require(condition: bool, key: str, allowed: str, value: Any) -> None:
    if not condition:
        raise ValueError(f"{key} must be {allowed}, got {value}")


def _require_finite(section: Any, *unlimited: str) -> None:
    """Refuse nan and infinities. Keys in `unlimited` may be inf, which means no limit."""
    for key in (item.name for item in fields(section)):
        value = getattr(section, key)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float):
                _require(math.isfinite(number) or (number == math.inf and key in unlimited), key, "finite", value)


def _require_range(section: Any, keys: str, low: float, high: float = math.inf) -> None:
    """Check keys, separated by blanks, against a range that includes both ends."""
    allowed = f"at least {low}" if high == math.inf else f"from {low} to {high}"
    for key in keys.split():
        _require(low <= getattr(section, key) <= high, key, allowed, getattr(section, key))


def _require_positive(section: Any, *keys: str) -> None:
    for key in keys:
        _require(getattr(section, key) > 0, key, "above 0", getattr(section, key))


def _by_part(section: Any, key: str, default: float) -> dict[str, Any]:
    """Return a mapping with one value per part of the model. Parts that it does not name get the default."""
    given = getattr(section, key)
    if unknown := sorted(set(given) - set(PARTS)):
        raise ValueError(f"{key}.{unknown[0]} is not a part of the model; valid here: {', '.join(PARTS)}")
    return {part: given.get(part, default) for part in PARTS}


def _require_token_limits(section: Any) -> None:
    rate = section.tokens_per_second
    _require_range(section, "max_new_tokens", 1, MOST_TOKENS)
    _require(0 <= rate < math.inf, "tokens_per_second", "finite and at least 0", rate)


@dataclass
class PluginConfig:
    """A plugin and its options.

    Attributes:
        name: Registered name of the plugin. `arkasr plugins` lists the names.
        options: Options of the plugin, checked against its own dataclass. They are dropped if a later layer changes
            the name.
    """

    name: str = ""
    options: dict[str, Any] = field(default_factory=dict, metadata={"belongs_to": "name"})


@dataclass
class LoraConfig:
    """Low-rank adapters (LoRA, arXiv:2106.09685): only B and A of W + (alpha / rank) B A are trained, and W is not.

    Encoder and decoder are not trained beside their adapters. The model's own adapter between them, the projector, is
    trained unless `model.freeze` names it. Trained weights are float32, and `model.dtype` is the data type of the
    others. `final` holds the merged weights, and its subfolder `adapter` the adapters alone.

    Attributes:
        rank: Rank of B A, from 1 to 1024. 0 trains without adapters. Needs pretrained weights (`model.path`, or
            `model.encoder` and `model.decoder`) and the package peft (`pip install 'arkasr[lora]'`).
        alpha: Factor of B A is alpha / rank. Above 0 and at most 10,000.
        dropout: Dropout of the inputs of A, at least 0 and below 1.
        targets: Names of the linear layers that get adapters, such as `[q_proj, v_proj]`. Empty: all linear layers of
            the blocks.
        encoder: Whether blocks of the encoder get adapters too.
    """

    rank: int = 0
    alpha: float = 32.0
    dropout: float = 0.0
    targets: list[str] = field(default_factory=list)
    encoder: bool = False

    def __post_init__(self) -> None:
        _require_finite(self)
        _require_range(self, "rank", 0, 1024)
        _require(0 < self.alpha <= MOST_DECAY, "alpha", f"above 0 and at most {MOST_DECAY}", self.alpha)
        _require(0 <= self.dropout < 1, "dropout", "at least 0 and below 1", self.dropout)
        _require(all(self.targets), "targets", "a list of names of linear layers", self.targets)


@dataclass
class ModelConfig:
    """The model to train.

    Attributes:
        type: Architecture: `arkasr` is the student of the paper. `qwen3_asr` and `glmasr` can be students too, and
            recipes train a teacher of type `qwen3_asr`. `glmasr` needs `path`.
        path: Folder or Hub id of the model to start from. Empty builds a model from `encoder`, `decoder` and `sizes`.
        allow_pickle: Read the weights of `path` from pytorch_model.bin if there are no safetensors.
        encoder: Folder or Hub id of a Whisper, GLM-ASR or Ark-ASR model whose audio encoder is copied, with its
            kind of positions: Whisper's are learned (clips of at most 30 s), the others' are rotary. Empty: fresh
            weights.
        decoder: Folder or Hub id of a Qwen2 or Qwen2.5 model that becomes the decoder, with its tokenizer. Empty:
            fresh weights.
        sizes: Sizes of fresh parts: `audio` and `text` hold keys of the encoder's and the decoder's Hugging Face
            configuration. `audio.positions` of Ark-ASR is `rotary` (default) or `learned`. `initializer_range`
            (default 0.02) is the standard deviation of fresh weights. A null removes
            what earlier layers set: `sizes: {audio: null}`, or `model.sizes.audio=null` on the command line.
        dtype: Data type of the weights that the optimizer updates.
        mask_padding: Whether the encoder of Ark-ASR masks padding. If it does not, as in the published trainer, the
            results for a clip depend on its batch. Null keeps the setting of `path`. A fresh model masks padding.
        freeze: Parts that are not trained: one or two of `encoder`, `adapter`, `decoder`. With `lora`, a part that is
            named here has no adapters either.
        dropout: Dropout in training, at least 0 and below 1: of the output of each attention and feed-forward layer,
            before it is added to the layer's input (arXiv:1706.03762, section 5.4), in blocks of encoder and decoder
            that are trained. Rollouts, dev clips and decoding have none.
        lora: See `LoraConfig`.
    """

    type: Literal["arkasr", "qwen3_asr", "glmasr"] = "arkasr"
    path: str = ""
    allow_pickle: bool = False
    encoder: str = ""
    decoder: str = ""
    sizes: dict[str, Any] = field(default_factory=dict, metadata={"belongs_to": "type", "null_unsets": True})
    dtype: Literal["float32", "bfloat16"] = "float32"
    mask_padding: bool | None = None
    freeze: list[str] = field(default_factory=list)
    dropout: float = 0.0
    lora: LoraConfig = field(default_factory=LoraConfig)

    def __post_init__(self) -> None:
        _require(0 <= self.dropout < 1, "dropout", "at least 0 and below 1", self.dropout)
        if self.type == "glmasr" and not self.path:
            raise ValueError("path must be set with type glmasr, which is not built from parts; name a GLM-ASR model")
        allowed = self.mask_padding is None or self.type == "arkasr"
        _require(allowed, "mask_padding", f"null with type {self.type}, which has no such setting", self.mask_padding)
        allowed = set(self.freeze) < set(PARTS)
        _require(allowed, "freeze", f"a list of some, but not all, of {', '.join(PARTS)}", self.freeze)
        if not self.lora.rank:
            return
        _require(bool(self.adapted), "freeze", "without `decoder` or `encoder`, which get adapters (lora)", self.freeze)
        pretrained = self.path or (self.encoder and self.decoder)
        allowed_rank = "0 without pretrained weights: set model.path, or model.encoder and model.decoder"
        _require(bool(pretrained), "lora.rank", allowed_rank, self.lora.rank)

    @property
    def adapted(self) -> tuple[str, ...]:
        """The parts that get adapters of `lora`."""
        parts = ("encoder", "decoder") if self.lora.encoder else ("decoder",)
        return tuple(part for part in parts if self.lora.rank and part not in self.freeze)

    @property
    def frozen(self) -> tuple[str, ...]:
        """The parts whose own weights are not trained."""
        return tuple(part for part in PARTS if part in self.freeze or (self.lora.rank and part != "adapter"))

    @property
    def drops_audio(self) -> bool:
        """Whether the encoder has dropout, so that distillation encodes the audio of a step twice."""
        by_adapters = "encoder" in self.adapted and self.lora.dropout > 0
        return by_adapters or (self.dropout > 0 and "encoder" in self.trained)

    @property
    def trained(self) -> tuple[str, ...]:
        """The parts that are trained, with their own weights or with adapters of `lora`."""
        return tuple(part for part in PARTS if part not in self.frozen or part in self.adapted)


@dataclass
class TokenizerConfig:
    """The tokenizer of a model that has none. Models from `model.path` and `model.decoder` bring their own.

    Attributes:
        path: Folder or Hub id of a tokenizer to use. Ark-ASR's special tokens are added to it. Empty trains a
            tokenizer.
        kind: Kind of the tokenizer to train.
        vocab_size: Number of tokens to learn, at most 1,000,000. For `sentencepiece`, at least 1, and bytes and special
            tokens are added to it. For `byte_bpe`, at least 256, because it includes the bytes, and special tokens are
            added.
        text: What the tokenizer is trained on: the transcripts of cuts, as in `data.train`, or the lines of a text file
            (.txt, .txt.gz).
    """

    path: str = ""
    kind: Literal["sentencepiece", "byte_bpe"] = "sentencepiece"
    vocab_size: int = 256
    text: str = "{datadir}/train.jsonl.gz"

    def __post_init__(self) -> None:
        fewest = {"byte_bpe": 256}.get(self.kind, 1)
        allowed = f"from {fewest} to 1000000 for kind {self.kind}"
        _require(fewest <= self.vocab_size <= 1_000_000, "vocab_size", allowed, self.vocab_size)


@dataclass
class DataConfig:
    """The training data and its batches.

    Attributes:
        train: Cuts to train on: a manifest, a folder of shards, a pattern, or a mix (`<name>.mix.yaml`).
        dev: Cuts for the dev error rate during training. The members of a mix are measured separately.
        hours: Hours of audio to train on, a random subset that is the same in every run. 0 uses all audio.
        max_seconds: Maximum padded audio seconds per batch and rank, above 0: number of clips times longest clip. A
            longer clip forms its own batch. `.inf` sets no limit.
        max_cuts: Maximum number of clips per batch and rank. At least 1.
        text_bytes_per_second: Maximum rate of text, in UTF-8 bytes per second of audio. A clip with more text counts as
            longer audio in `max_seconds`, so a padded batch has at most `max_seconds * text_bytes_per_second` bytes of
            text, and no more tokens. 0 sets no limit.
        num_buckets: Number of duration buckets. A batch holds clips of one bucket, whose transcripts are of similar
            size. At least 1.
        num_workers: Data loader processes per rank, at most 1024. 0 loads audio in the training process.
        lazy: Read manifests line by line instead of loading them into memory. `auto` does so if they have 64 MiB or
            more.
        buffer_clips: Number of clips held in memory, among which batches are drawn. At least 1.
        resume: Data order of a resumed run. `exact` continues with the batches of an uninterrupted run, after it has
            read the epoch's cuts again. `reseed` continues at once with the unread cuts in a new order.
        max_failed_share: Share of clips, from 0 to 1, that may fail to load. The run ends if more do.
        min_clip_seconds: Minimum duration of clips in seconds. Shorter clips are left out and counted. 0 sets no limit.
        max_clip_seconds: Maximum duration of clips in seconds, above 0 and not below `min_clip_seconds`. Longer clips
            are left out and counted. `.inf` sets no limit.
        channels: Use of recordings with several channels. `auto` mixes the channels of a cut, but keeps the one that a
            manifest selects. `mix` always mixes, `refuse` counts such clips as failed, and a number selects a channel.
        language: Language of cuts that name none, such as `English`, where no `corpus.json` beside the manifest gives
            it.
    """

    train: str = "{datadir}/train.jsonl.gz"
    dev: str = "{datadir}/dev.jsonl.gz"
    hours: float = 0.0
    max_seconds: float = 160.0
    max_cuts: int = 40
    text_bytes_per_second: float = 50.0
    num_buckets: int = 10
    num_workers: int = 0
    lazy: Literal["auto", "always", "never"] = "auto"
    buffer_clips: int = 20000
    resume: Literal["exact", "reseed"] = "exact"
    max_failed_share: float = 0.05
    min_clip_seconds: float = 0.1
    max_clip_seconds: float = 30.0
    channels: Any = "auto"
    language: str = ""

    def __post_init__(self) -> None:
        _require_finite(self, "max_seconds", "max_clip_seconds")
        _require_range(self, "hours min_clip_seconds text_bytes_per_second", 0)
        _require_positive(self, "max_seconds", "max_clip_seconds")
        _require_range(self, "max_cuts num_buckets buffer_clips", 1)
        _require_range(self, "num_workers", 0, MOST_PROCESSES)
        _require_range(self, "max_failed_share", 0, 1)
        allowed = self.min_clip_seconds <= self.max_clip_seconds
        most = f"at most max_clip_seconds ({self.max_clip_seconds})"
        _require(allowed, "min_clip_seconds", most, self.min_clip_seconds)
        self.channels = str(self.channels)  # a number may be given as text or as a number
        allowed = self.channels in CHANNEL_POLICIES or (self.channels.isascii() and self.channels.isdigit())
        _require(allowed, "channels", f"{', '.join(CHANNEL_POLICIES)} or a channel number", self.channels)


@dataclass
class AugmentConfig:
    """Changes of the training audio, drawn anew each time that a clip is read. Dev and test sets are never changed.

    `speeds` is speed perturbation (Ko et al. 2015, doi 10.21437/Interspeech.2015-711). It changes the audio itself, so
    student, rollout and teacher read the same audio, and limits of length and hours of audio count it as it is read.
    The other keys are SpecAugment (arXiv:1904.08779) without its time warping. Masks hide parts of the log-mel features
    in the student's pass with gradient only. In OPD, the rollout and the teacher read the clip without masks, and the
    student is scored with them, which encodes the audio twice. A masked value is replaced by the mean of its clip.

    Attributes:
        speeds: Speeds from 0.5 to 2 with at most two decimals, such as `[0.9, 1.0, 1.1]`. One of them is drawn for each
            clip and epoch, among those at which the clip lasts from `data.min_clip_seconds` to `data.max_clip_seconds`.
            If there is none, the clip keeps its speed. Empty changes no speed.
        time_masks: Number of time masks per clip, from 0 to 100.
        time_mask_seconds: Maximum length of a time mask, above 0. Lengths are uniform from 0 to it.
        time_mask_share: Maximum length of a time mask as a share of the clip, above 0 and at most 1.
        mel_masks: Number of frequency masks per clip, from 0 to 100.
        mel_mask_share: Maximum width of a frequency mask as a share of the mel filters, above 0 and at most 1. Widths
            are uniform from 0 to it.
    """

    speeds: list[float] = field(default_factory=list)
    time_masks: int = 0
    time_mask_seconds: float = 1.0
    time_mask_share: float = 1.0
    mel_masks: int = 0
    mel_mask_share: float = 0.3375  # 27 of 80 filters, as in the policy LibriSpeech double of the paper

    def __post_init__(self) -> None:
        _require_finite(self)
        allowed = len({*self.speeds}) == len(self.speeds) and all(map(_is_speed, self.speeds))
        _require(allowed, "speeds", "different numbers from 0.5 to 2 with at most two decimals", self.speeds)
        _require_range(self, "time_masks mel_masks", 0, 100)
        _require_positive(self, "time_mask_seconds", "time_mask_share", "mel_mask_share")
        for key in ("time_mask_share", "mel_mask_share"):
            _require(getattr(self, key) <= 1, key, "above 0 and at most 1", getattr(self, key))

    @property
    def masks(self) -> bool:
        """Whether masks are drawn."""
        return self.time_masks > 0 or self.mel_masks > 0


def _is_speed(factor: float) -> bool:
    return 0.5 <= factor <= 2 and round(factor, 2) == factor


@dataclass
class OptimConfig:
    """AdamW and its learning rate schedule.

    Attributes:
        lr: Peak learning rate, above 0 and at most 1000.
        lr_scale: Factor of the learning rate of `encoder`, `adapter` and `decoder`, above 0 and at most 1000. Parts
            that are not named have 1. The decoder includes embeddings and output head, and the CTC head belongs to the
            adapter.
        betas: The two betas of AdamW, each at least 0 and below 1.
        weight_decay: Weight decay, at most 10,000. 0 disables it.
        decay: Parameters with weight decay. `matrices` leaves out vectors, such as biases and weights of norms.
        clip: Maximum global gradient norm, above 0. `.inf` sets no limit.
        warmup_steps: Optimizer steps of linear warm-up to the peak, also if the length of the run is given in epochs or
            hours. 0 starts at the peak.
        min_lr_ratio: Learning rate at the end of the cosine, as a share of the peak, from 0 to 1. 0 ends at a rate of
            0.
        schedule: Learning rate after the warm-up. The cosine follows the share of the run (in steps, or in hours of
            audio) that is done.
    """

    lr: float = 1e-4
    lr_scale: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 1.0))
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    weight_decay: float = 0.005
    decay: Literal["matrices", "all"] = "matrices"
    clip: float = 1.0
    warmup_steps: int = 1000
    min_lr_ratio: float = 0.1
    schedule: Literal["cosine", "constant"] = "cosine"

    def __post_init__(self) -> None:
        _require_finite(self, "clip")
        _require_positive(self, "clip")
        _require(0 < self.lr <= MOST_RATE, "lr", f"above 0 and at most {MOST_RATE}", self.lr)
        self.lr_scale = _by_part(self, "lr_scale", 1.0)
        for part, scale in self.lr_scale.items():
            allowed = 0 < scale <= MOST_RATE and self.lr * scale <= MOST_RATE  # nan is refused too
            at_most = f"above 0 and at most {MOST_RATE}, and so must be its product with lr"
            _require(allowed, f"lr_scale.{part}", at_most, scale)
        allowed = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        _require(allowed, "betas", "two numbers of at least 0 and below 1", self.betas)
        _require_range(self, "weight_decay", 0, MOST_DECAY)
        _require_range(self, "warmup_steps", 0)
        _require_range(self, "min_lr_ratio", 0, 1)


@dataclass
class TrainConfig:
    """The training loop. Intervals and counts are in optimizer steps.

    Exactly one of `steps`, `epochs` and `hours` is the length of the run. If a later layer sets one of them, those of
    earlier layers no longer count. You can raise the length later to extend the run.

    Attributes:
        steps: Length of the run in optimizer steps. 0 if another key is its length.
        epochs: Length of the run in epochs, at least 0. One epoch is all audio that the settings of `data` select. 0 if
            another key is its length.
        hours: Length of the run in hours of audio, at least 0. Clips that are read again count again. 0 if another key
            is its length.
        accumulate: Batches per optimizer step and rank (gradient accumulation). At least 1.
        log_every: Steps between rows of metrics.jsonl. The last step and steps with a dev error rate always have rows.
            0 writes no others.
        eval_every: Steps between measurements of the dev error rate, which is also measured after the last step. 0
            never measures it.
        eval_clips: Number of dev clips for the dev error rate, a random sample spread over speakers that is the same in
            every run. They are divided evenly over the members of a mix. At least 1.
        save_every: Steps between checkpoints. The last step always has one. 0 writes no others, except if a signal
            stops the run.
        keep: Number of newest checkpoints to keep. At least 1.
        keep_best: Number of checkpoints with the lowest dev error rate to keep in addition. Only steps that were both
            saved and evaluated count. 0 keeps none for their error rate.
        patience: Number of dev error rates in a row, none of them below the lowest before, after which the run ends
            early. 0 never ends it early.
        final: Checkpoints whose weights `final` holds: the `last` ones, or the `best` ones by their dev error rate.
            Checkpoints count if their step is a multiple of `save_every`, or the last step. `best` also needs a dev
            error rate, so use a `save_every` that is a multiple of `eval_every`.
        average: Number of these checkpoints whose mean weights `final` holds. At least 1. They are kept in addition to
            `keep` and `keep_best`. If there are fewer, `final` is the mean of those.
        frozen_steps: Number of first steps of the run in which `encoder`, `adapter` and `decoder` are not
            trained. Parts that are not named have 0. One trained part must have 0. Name a part that is never trained in
            `model.freeze`.
        cache_encoder: GiB of host memory or disk, at least 0, for the encoder's states of training and dev clips while
            the encoder is frozen. Each clip is then encoded once, alone, so results equal those without cache up to
            rounding. States beyond the limit are computed in every step, which is logged. 0 caches none. Only for
            one rank, for features without masks (`augment`), and for encoders that mask padding.
        cache_folder: Folder for these states, such as `{expdir}/encoder_states`, which runs with equal encoders share.
            It may be deleted when no run uses it. Empty keeps them in memory.
        ctc_weight: Weight w of an auxiliary CTC loss on the adapter's outputs: (1 - w) * CE + w * CTC, from 0 to 1. 0
            disables it. With 1 the decoder is not used, and dev error rates are those of the CTC head. Only for
            `objective: sft`.
        ctc_vocab_size: Number of tokens that the CTC loss has for itself, from 0 to 1,000,000, as
            `tokenizer.vocab_size` for `sentencepiece`. They are learned from `tokenizer.text`. Letters
            and short pieces are aligned with the audio in fewer steps than words. 0 uses the tokens of the model. A run
            that continues a CTC head keeps its tokens.
        max_skipped: Number of skipped steps in a row that ends the run. At least 1. Steps are skipped if the loss or
            the gradient is not finite, or if there is nothing to score.
        spike_factor: Gradient norms above this multiple of the recent median are recorded with their clips in
            spikes.jsonl. 0 records only gradients that are not finite.
        hang_seconds: Seconds without progress after which the run names the phase, or the ranks that are behind, and
            ends. Above 0 and at most 1e8.
        threads: CPU threads per rank, at most 1024. 0 is the default of torch.
        peak_tflops: Peak throughput of one rank in `fsdp.compute_dtype`, dense, in TFLOP/s, for the metric `mfu`. 0
            uses the data sheet of known GPUs, for bfloat16 only.
    """

    steps: int = field(default=1000, metadata={"one_of": "length"})
    epochs: float = field(default=0.0, metadata={"one_of": "length"})
    hours: float = field(default=0.0, metadata={"one_of": "length"})
    accumulate: int = 1
    log_every: int = 1
    eval_every: int = 500
    eval_clips: int = 100
    save_every: int = 1000
    keep: int = 3
    keep_best: int = 1
    patience: int = 0
    final: Literal["last", "best"] = "last"
    average: int = 1
    frozen_steps: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    cache_encoder: float = 0.0
    cache_folder: str = ""
    ctc_weight: float = 0.0
    ctc_vocab_size: int = 0
    max_skipped: int = 20
    spike_factor: float = 10.0
    hang_seconds: float = 1800.0
    threads: int = 0
    peak_tflops: float = 0.0

    @property
    def length(self) -> tuple[str, float]:
        """The unit of the length of the run (one of `LENGTHS`), and the length in it."""
        return next((key, getattr(self, key)) for key in LENGTHS if getattr(self, key))

    def __post_init__(self) -> None:
        _require_finite(self)
        _require_range(self, "steps epochs hours", 0)
        set_keys = [key for key in LENGTHS if getattr(self, key) > 0]
        if len(set_keys) != 1:
            found = " and ".join(f"{key} {getattr(self, key):g}" for key in set_keys) or "none"
            raise ValueError(f"steps, epochs or hours: exactly one must be above 0, got {found}; set the others to 0")
        _require_range(self, "accumulate eval_clips keep average max_skipped", 1)
        _require_range(self, "log_every eval_every save_every keep_best patience spike_factor peak_tflops", 0)
        _require_range(self, "cache_encoder", 0)
        self._check_selection()
        self.frozen_steps = _by_part(self, "frozen_steps", 0)
        for part, steps in self.frozen_steps.items():
            _require(steps >= 0, f"frozen_steps.{part}", "at least 0", steps)
            allowed = f"below steps ({self.steps}), because a part that is never trained belongs in model.freeze"
            _require(steps < self.steps or not (steps and self.steps), f"frozen_steps.{part}", allowed, steps)
        _require_range(self, "ctc_weight", 0, 1)
        _require_range(self, "ctc_vocab_size", 0, 1_000_000)
        _require(0 < self.hang_seconds <= LONGEST_WAIT, "hang_seconds", "above 0 and at most 1e8", self.hang_seconds)
        _require_range(self, "threads", 0, MOST_PROCESSES)

    def _check_selection(self) -> None:
        """Check the keys that select weights by their dev error rate, or from several checkpoints."""
        measured, saved = self.eval_every > 0, self.save_every > 0
        unmeasured, unsaved = "with `eval_every: 0`, which measures no dev error rate", "with `save_every: 0`"
        _require(measured or not self.patience, "patience", f"0 {unmeasured}", self.patience)
        _require(measured or self.final == "last", "final", f"last {unmeasured}", self.final)
        _require(saved or self.final == "last", "final", f"last {unsaved}", self.final)
        _require(saved or self.average == 1, "average", f"1 {unsaved}", self.average)


@dataclass
class RolloutConfig:
    """The transcripts that the student generates for distillation.

    `empty` and `looping` are policies for degenerate transcripts. `score` scores the transcript unchanged, `skip`
    removes it, and `reference` scores the reference text in its place.

    Attributes:
        max_new_tokens: Maximum number of tokens per transcript, from 1 to 100,000.
        tokens_per_second: Further limit of 2 + r s tokens, for this rate r and s seconds of audio. 0 sets no limit.
        temperature: Sampling temperature, from 0.01 to 100. 0 decodes greedily.
        top_p: Probability mass to sample from: the smallest set of most probable tokens with this mass. From 1e-6 to 1,
            which is all tokens.
        samples: Number of transcripts per clip, from 1 to 1024. More than one needs a temperature above 0.
        empty: Policy for transcripts without a word.
        looping: Policy for transcripts that end in a repeated pattern.
        compile: Whether a decoding step goes through torch.compile. `auto` compiles it on a GPU for each shape that has
            run 20,000 steps. Compiled steps round differently, so with `auto` a resumed run may choose another of two
            almost equal tokens.
    """

    max_new_tokens: int = 64
    tokens_per_second: float = 12.0
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    empty: Literal["score", "skip", "reference"] = "score"
    looping: Literal["score", "skip", "reference"] = "score"
    compile: Literal["auto", "on", "off"] = "auto"

    def __post_init__(self) -> None:
        _require_token_limits(self)
        allowed = self.temperature == 0 or COLDEST <= self.temperature <= WARMEST
        _require(allowed, "temperature", f"0, or from {COLDEST:g} to {WARMEST:g}", self.temperature)
        _require(LEAST_MASS <= self.top_p <= 1, "top_p", f"from {LEAST_MASS:g} to 1", self.top_p)
        allowed = self.samples == 1 or (1 < self.samples <= 1024 and self.temperature != 0)
        _require(allowed, "samples", "1, or up to 1024 with a temperature above 0", self.samples)


@dataclass
class DistillConfig:
    """The transcripts to score and the tokens to compare. The temperature tau of equation (1) is an option of the loss.

    Attributes:
        top_k: k, the number of most probable tokens of each side, at least 1. Their union is the support.
        candidates: The student's side of the support. `topk` is its k most probable tokens. `published` changes them as
            the published trainer does. Stop tokens are removed. The token of the transcript comes first if it is not
            among the others, and k tokens are kept.
        mix: Weights of the random choice, per clip, of the transcript to score: the student's rollout, the teacher's
            transcript, or the reference text. A weight of 0 never chooses the source.
        diagnose_every: Steps between the diagnostics that need whole distributions. 0 never computes them.
    """

    top_k: int = 32
    candidates: Literal["topk", "published"] = "topk"
    mix: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SOURCES, 0.0) | {"student": 1.0})
    diagnose_every: int = 10

    def __post_init__(self) -> None:
        unknown = sorted(set(self.mix) - set(SOURCES))
        if unknown:
            raise ValueError(f"mix.{unknown[0]} is not a source of transcripts; valid here: {', '.join(SOURCES)}")
        weights = self.mix.values()
        allowed = all(0 <= weight < math.inf for weight in weights) and 0 < sum(weights) < math.inf
        _require(allowed, "mix", "finite weights of at least 0 with a finite sum above 0", self.mix)
        _require_range(self, "top_k", 1)
        _require_range(self, "diagnose_every", 0)


@dataclass
class TeacherDataConfig:
    """The selection of teacher transcripts that `arkasr label` turns into training data.

    td_teacher.jsonl keeps all transcripts, so you can change the selection without the teacher.

    Attributes:
        max_error: Maximum error rate of a transcript against the reference, in the corpus's metric, from 0 to 1. Rates
            above 1 count as 1, so 1 keeps all. It does not apply to clips without reference.
        clips: Cuts that the teacher transcribes, with or without transcript: a manifest, a folder of shards, or a
            pattern.
    """

    max_error: float = 1.0
    clips: str = "{datadir}/td.jsonl.gz"

    def __post_init__(self) -> None:
        _require_range(self, "max_error", 0, 1)


@dataclass
class DecodeConfig:
    """Greedy decoding of the test sets.

    The limit by duration ends repetition loops in short clips. 50 tokens per second are twice what fast speech needs
    in a tokenizer of single bytes.

    Attributes:
        max_new_tokens: Maximum number of tokens per transcript, from 1 to 100,000.
        tokens_per_second: Further limit of 2 + r s tokens, for this rate r and s seconds of audio. 0 sets no limit.
        max_seconds: Maximum padded audio seconds per batch, above 0: number of clips times longest clip. A longer clip
            forms its own batch. `.inf` sets no limit.
        dtype: Data type of the weights of trained runs. `auto` is bfloat16 on a GPU and float32 on a CPU. Teachers
            have their own option.
        agreement_clips: Number of clips per test set that are transcribed again in float32 if the set was decoded in
            bfloat16. Their agreement is logged and recorded. 0 measures none.
    """

    max_new_tokens: int = 256
    tokens_per_second: float = 50.0
    max_seconds: float = 160.0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    agreement_clips: int = 64

    def __post_init__(self) -> None:
        _require_token_limits(self)
        _require_range(self, "agreement_clips", 0)
        _require_finite(self, "max_seconds")
        _require_positive(self, "max_seconds")


@dataclass
class FsdpConfig:
    """Sharding of the model over ranks. Runs with several ranks are always sharded, runs with one rank never.

    Attributes:
        compute_dtype: Data type of forward and backward pass. The optimizer updates weights in `model.dtype`.
        reshard_after_forward: Free the gathered weights of a block after its forward pass and gather them again in the
            backward pass. This saves memory and costs communication.
        activation_checkpointing: `blocks` keeps only the inputs of each block and computes its activations again in
            the backward pass.
        replicate: Number of groups of ranks that each hold a whole model, sharded inside the group. 0 makes one group
            per machine.
        teacher: A teacher in the training process: `replicate` puts it whole on every rank, `shard` shards it over the
            ranks.
    """

    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    reshard_after_forward: bool = True
    activation_checkpointing: Literal["none", "blocks"] = "none"
    replicate: int = 1
    teacher: Literal["replicate", "shard"] = "replicate"

    def __post_init__(self) -> None:
        _require_range(self, "replicate", 0)


@dataclass
class Config:
    """The configuration of one run.

    Attributes:
        run: Name of the run. `--run` sets it, and a configuration file cannot.
        seed: Seed of weights, shuffling and sampling, from 0 to 2147483647.
        rounding: Number of a repetition with the same seed and other rounding errors, from 0 to 2147483647. Above 0,
            the last place of each trained weight is changed at random before the first step. 0 changes nothing.
        objective: `sft` is cross-entropy on transcripts. `opd` is on-policy distillation. `none` trains nothing: the
            result of the run is the model of `model.path`, so that stages 4 to 6 work on a downloaded model.
        model: See `ModelConfig`.
        tokenizer: See `TokenizerConfig`.
        data: See `DataConfig`.
        augment: See `AugmentConfig`.
        optim: See `OptimConfig`.
        train: See `TrainConfig`.
        loss: The loss of `objective: opd`, a plugin.
        teacher: The teacher of `objective: opd` and of `arkasr label`, a plugin.
        mapper: The token mapper of `objective: opd`, a plugin.
        rollout: See `RolloutConfig`.
        distill: See `DistillConfig`.
        teacher_data: See `TeacherDataConfig`.
        decode: See `DecodeConfig`.
        fsdp: See `FsdpConfig`.
    """

    run: str = field(default="", metadata={"unlisted": True})
    seed: int = 1
    rounding: int = 0
    objective: Literal["sft", "opd", "none"] = "sft"
    model: ModelConfig = field(default_factory=ModelConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
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

    def __post_init__(self) -> None:
        _require_range(self, "seed rounding", 0, MOST_SEED)
        allowed = self.objective != "none" or bool(self.model.path)
        _require(allowed, "objective", "sft or opd without `model.path`", self.objective)
        self._check_frozen_steps()
        self._check_cache()

    def _check_cache(self) -> None:
        cached = self.train.cache_encoder
        frozen = "encoder" not in self.model.trained or self.train.frozen_steps["encoder"] > 0
        how = "0 with a trained encoder; name it in `model.freeze`, or set train.frozen_steps.encoder"
        _require(not cached or frozen, "train.cache_encoder", how, cached)
        how = "0 with masks (augment.time_masks, augment.mel_masks), which change the encoder's input in every step"
        _require(not (cached and self.augment.masks), "train.cache_encoder", how, cached)
        folder = self.train.cache_folder
        _require(bool(cached) or not folder, "train.cache_folder", "empty without train.cache_encoder", folder)

    def _check_frozen_steps(self) -> None:
        frozen = self.train.frozen_steps
        for part in PARTS:
            allowed = not frozen[part] or part in self.model.trained
            never = "0 for a part that `model` never trains"
            _require(allowed, f"train.frozen_steps.{part}", never, frozen[part])
        trained = {part: frozen[part] for part in self.model.trained}
        _require(0 in trained.values(), "train.frozen_steps", "0 for at least one part that is trained", trained)

    @property
    def needs_text(self) -> bool:
        """Whether the training cuts need transcripts: for `sft`, and for `opd` that scores references."""
        policies = (self.rollout.empty, self.rollout.looping)
        return self.objective == "sft" or self.distill.mix.get("reference", 0.0) > 0 or "reference" in policies
