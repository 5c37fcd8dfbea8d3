"""Setup of one run: its directory and record, tokenizer, model and optimizer."""

from __future__ import annotations

import fcntl
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedTokenizerBase

from arkasr.config.load import config_differences, dump_config, read_config
from arkasr.config.schema import Config, OptimConfig
from arkasr.data.manifests import read_cuts
from arkasr.errors import UserError
from arkasr.model import build, tokenization
from arkasr.model.build import assemble, freeze, student_sizes
from arkasr.model.loading import load_speech_lm
from arkasr.model.reading import load_tokenizer
from arkasr.model.sharding import checkpoint_blocks, shard
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.plugins import registry
from arkasr.training.random_state import seed_generators
from arkasr.training.ranks import Ranks

PACKAGES = ("arkasr", "torch", "torchaudio", "transformers", "lhotse", "pluggy", "sentencepiece", "tokenizers", "jiwer")
CHANGEABLE_KEYS = (  # configuration keys that a resumed run may change, because they do not change its results
    "data.num_workers",
    "data.resume",
    "data.max_failed_share",
    "train.log_every",
    "train.save_every",
    "train.keep",
    "train.keep_best",
    "train.hang_seconds",
    "train.max_skipped",
    "train.spike_factor",
    "train.threads",
    "train.peak_tflops",
    "fsdp",
    "distill.diagnose_every",
)


@contextmanager
def run_directory(folder: Path, config: Config, ranks: Ranks) -> Iterator[None]:
    """Create and lock the directory of the run, and write config.yaml and run.json.

    Args:
        folder: The run's directory, `<expdir>/<run>`.
        config: The run's configuration.
        ranks: The processes of the run. Rank 0 holds the lock, the others wait for it.

    Yields:
        None, while the lock is held.

    Raises:
        UserError: Another process trains in this directory, or the run was started with other settings.
    """
    if not ranks.first:
        ranks.barrier()
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            # lockf, because a flock would be inherited by data loader processes, which may outlive this process
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"{folder}: another process is training here; wait until it ends, or use another --expdir"
            ) from error
        _write_record(folder, config, config.train.accumulate * ranks.world_size)
        ranks.barrier()
        yield


def _write_record(folder: Path, config: Config, batches_per_step: int) -> None:
    """Write config.yaml and run.json, after a comparison with those of earlier starts.

    `batches_per_step` counts micro-batches over ranks and gradient accumulation. If it stays the same,
    `train.accumulate` may change with the number of ranks.
    """
    saved = folder / "config.yaml"
    if saved.is_file():
        record = json.loads((folder / "run.json").read_text()) if (folder / "run.json").is_file() else {}
        old_name = record.get("batches_a_step")  # runs that were started before the key was renamed
        same = record.get("batches_per_step", old_name) == batches_per_step
        changeable = (*CHANGEABLE_KEYS, *(["train.accumulate"] if same else []))
        changed = config_differences(read_config(saved), config, changeable)
        if changed:
            raise UserError(
                f"{saved}: this run was started with other settings ({', '.join(changed)}); restore them, "
                f"use another --expdir, or delete {folder}"
            )
    dump_config(config, saved)
    if not (folder / "run.json").is_file():
        record = {
            "recipe": os.environ.get("ARKASR_RECIPE", ""),
            "command": shlex.join(["arkasr", *sys.argv[1:]]),
            "commit": _commit(),
            "versions": {p: _version(p) for p in PACKAGES} | {"python": sys.version.split()[0]},
            "plugins": registry.listing(),
            "world_size": int(os.environ.get("WORLD_SIZE", "1")),
            "batches_per_step": batches_per_step,
            "started": datetime.now().isoformat(timespec="seconds"),
        }
        part = folder / "run.json.part"
        part.write_text(json.dumps(record, indent=1), encoding="utf-8")
        part.replace(folder / "run.json")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _commit() -> str:
    """Return the git commit of the source tree, with `+` if it has local changes, or an empty string outside git."""
    where = Path(__file__).parent

    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(where), *args], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return head + "+" if head and git("status", "--porcelain", "-uno") else head
    except OSError:
        return ""


def make_model(config: Config, folder: Path, ranks: Ranks) -> SpeechLM:
    """Load or build the student, freeze parts of it, add a CTC head if the loss needs one, and shard it.

    Afterwards, each rank has another seed: weights are the same on all ranks, rollouts and data mix must differ.

    Args:
        config: The run's configuration.
        folder: The run's directory, for the tokenizer.
        ranks: The processes of the run.

    Returns:
        The student in training mode, on the device of this rank.

    Raises:
        UserError: The model or tokenizer cannot be read, or does not fit the configuration.
    """
    seed_generators(config.seed)
    if config.model.path:
        lm = load_speech_lm(config.model.path, config.model.dtype, allow_pickle=config.model.allow_pickle)
        found = lm.hf.config.model_type
        if found != config.model.type:
            raise UserError(
                f"config key `model.path` {config.model.path}: holds a model of type {found}, but `model.type` is "
                f"{config.model.type}; change one of them"
            )
    else:
        student_sizes(config.model, 0)  # reports wrong sizes before a tokenizer is trained
        lm = assemble(config.model, _tokenizer(config, folder, ranks))
    freeze(lm, config.model.freeze)
    if config.train.ctc_weight > 0:
        lm.add_ctc_head()
    if ranks.rank:
        seed_generators(config.seed, ranks.rank)
    lm = lm.to(ranks.device).train()
    if config.fsdp.activation_checkpointing == "blocks":
        checkpoint_blocks(lm)
    if ranks.mesh is None:
        return lm
    return shard(lm, ranks.mesh, config.fsdp.compute_dtype, config.fsdp.reshard_after_forward)


def _tokenizer(config: Config, folder: Path, ranks: Ranks) -> PreTrainedTokenizerBase:
    """Create the run's tokenizer on rank 0 if it does not exist, and load it on all ranks."""
    path = folder / "tokenizer"
    if ranks.first and not path.is_dir():
        temporary = folder / "writing-tokenizer"
        shutil.rmtree(temporary, ignore_errors=True)
        _new_tokenizer(config).save_pretrained(temporary)
        temporary.rename(path)
    ranks.barrier()
    return load_tokenizer(str(path))


def _new_tokenizer(config: Config) -> PreTrainedTokenizerBase:
    """Load the pretrained tokenizer and add missing special tokens, or train a new one."""
    settings = config.tokenizer
    if settings.path and config.model.decoder:
        raise UserError(
            f"config key `tokenizer.path` must be empty with `model.decoder`, got {settings.path}: "
            f"{config.model.decoder} has its own tokenizer"
        )
    if path := settings.path or config.model.decoder:
        tokenizer = load_tokenizer(path)
        tokenizer.add_special_tokens({"additional_special_tokens": tokenization.ARK_TOKENS, "eos_token": "<|im_end|>"})
        return tokenizer
    texts = [s.text for cut in read_cuts(settings.text) for s in cut.supervisions if s.text]
    texts += build.prompt_examples(config.model.type) * max(1, len(texts) // 20)
    kinds = {"sentencepiece": tokenization.train_sentencepiece, "byte_bpe": tokenization.train_byte_bpe}
    return kinds[settings.kind](texts, settings.vocab_size)


def make_optimizer(config: OptimConfig, steps: int, lm: SpeechLM) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Create AdamW, with weight decay on matrices only, and its learning rate schedule.

    The schedule is a linear warm-up, then a cosine to `min_lr_ratio` times `lr`, or constant.

    Args:
        config: The `optim` section of the configuration.
        steps: Number of optimizer steps of the whole run.
        lm: The model. Frozen parameters are left out.

    Returns:
        The optimizer and the schedule, which is stepped once per optimizer step.
    """
    params = [p for p in lm.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = cast(tuple[float, float], tuple(config.betas))  # YAML lists have no length in their type
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=betas)

    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        if config.schedule == "constant":
            return 1.0
        done = min((step - config.warmup_steps) / max(steps - config.warmup_steps, 1), 1.0)
        return config.min_lr_ratio + (1 - config.min_lr_ratio) * (1 + math.cos(math.pi * done)) / 2

    return optimizer, LambdaLR(optimizer, factor)
