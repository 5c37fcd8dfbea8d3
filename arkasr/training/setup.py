"""What a run starts from: its directory, its tokenizer, its model and its optimizer."""

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

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoTokenizer

from arkasr.config.load import config_differences, dump_config, read_config
from arkasr.config.schema import Config, OptimConfig
from arkasr.data.manifests import read_cuts
from arkasr.errors import UserError
from arkasr.model import build, tokenization
from arkasr.model.build import assemble, freeze, student_sizes
from arkasr.model.loading import load_speech_lm
from arkasr.model.pretrained_parts import reading
from arkasr.model.sharding import checkpoint_blocks, shard
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.plugins import registry
from arkasr.training.ranks import Ranks

PACKAGES = ("arkasr", "torch", "torchaudio", "transformers", "lhotse", "pluggy", "sentencepiece", "tokenizers", "jiwer")
MAY_CHANGE = (
    *(
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
    ),
    "distill.diagnose_every",
)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _commit() -> str:
    """Return the commit of the source tree that runs, `+` appended where it has changes; empty outside git."""
    where = Path(__file__).parent

    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(where), *args], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return head + "+" if head and git("status", "--porcelain", "-uno") else head
    except OSError:
        return ""


@contextmanager
def run_directory(folder: Path, config: Config, ranks: Ranks) -> Iterator[None]:
    """Hold a run's directory: one run at a time, and never another experiment in it.

    Raises UserError where another process trains here, or the directory was made with other settings.
    """
    if not ranks.first:
        ranks.barrier()
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.lockf(
                lock, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # unlike flock's, not kept by loader processes that outlive us
        except OSError as error:
            raise UserError(
                f"{folder}: another process is training here; wait for it, or give another --expdir"
            ) from error
        _write_record(folder, config, config.train.accumulate * ranks.world_size)
        ranks.barrier()
        yield


def _write_record(folder: Path, config: Config, batches: int) -> None:
    """Write config.yaml and run.json; batches: of a step, over ranks and accumulation, which stays as it was."""
    saved = folder / "config.yaml"
    if saved.is_file():
        record = json.loads((folder / "run.json").read_text()) if (folder / "run.json").is_file() else {}
        same = record.get("batches_a_step") == batches  # fewer ranks may take more batches each
        changed = config_differences(read_config(saved), config, (*MAY_CHANGE, *(["train.accumulate"] if same else [])))
        if changed:
            raise UserError(
                f"{saved}: this run was made with other settings ({', '.join(changed)}): take them back, "
                f"give another --expdir, or delete {folder}"
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
            "batches_a_step": batches,
            "started": datetime.now().isoformat(timespec="seconds"),
        }
        part = folder / "run.json.part"
        part.write_text(json.dumps(record, indent=1), encoding="utf-8")
        part.replace(folder / "run.json")


def _tokenizer(config: Config, folder: Path, ranks: Ranks):
    """Make the tokenizer once, on the first rank, and load it on all."""
    place = folder / "tokenizer"
    if ranks.first and not place.is_dir():
        aside = folder / "writing-tokenizer"
        shutil.rmtree(aside, ignore_errors=True)
        _new_tokenizer(config).save_pretrained(aside)
        aside.rename(place)
    ranks.barrier()
    return AutoTokenizer.from_pretrained(place)


def _new_tokenizer(config: Config):
    """Take the decoder's tokenizer, or another, and add the special tokens that it lacks; or train one."""
    settings = config.tokenizer
    if settings.path and config.model.decoder:
        raise UserError(
            f"tokenizer.path {settings.path}: model.decoder {config.model.decoder} brings its own tokenizer; take one away"
        )
    if path := settings.path or config.model.decoder:
        with reading(path):
            tokenizer = AutoTokenizer.from_pretrained(path)
        tokenizer.add_special_tokens({"additional_special_tokens": tokenization.ARK_TOKENS, "eos_token": "<|im_end|>"})
        return tokenizer
    texts = [s.text for cut in read_cuts(settings.text) for s in cut.supervisions if s.text]
    texts += build.prompt_examples(config.model.type) * max(1, len(texts) // 20)
    kinds = {"sentencepiece": tokenization.train_sentencepiece, "byte_bpe": tokenization.train_byte_bpe}
    return kinds[settings.kind](texts, settings.vocab_size)


def make_model(config: Config, folder: Path, ranks: Ranks) -> SpeechLM:
    """Load or put together the model, freeze parts, give it a CTC head where the loss needs one, and shard it."""
    torch.manual_seed(config.seed)
    if config.model.path:
        lm = load_speech_lm(config.model.path, config.model.dtype, allow_pickle=config.model.allow_pickle)
        if lm.hf.config.model_type != config.model.type:
            raise UserError(
                f"model.path {config.model.path} holds a {lm.hf.config.model_type}, not a {config.model.type}"
            )
    else:
        student_sizes(config.model, 0)  # what is wrong with them is said before a tokenizer is trained
        lm = assemble(config.model, _tokenizer(config, folder, ranks))
    freeze(lm, config.model.freeze)
    if config.train.ctc_weight > 0:
        lm.add_ctc_head()
    if ranks.rank:  # weights are the same on all ranks; what they draw later (rollouts, the data mix) must not be
        torch.manual_seed(config.seed + 1_000_003 * ranks.rank)
    lm = lm.to(ranks.device).train()
    if config.fsdp.activation_checkpointing == "blocks":
        checkpoint_blocks(lm)
    if ranks.mesh is None:
        return lm
    return shard(lm, ranks.mesh, config.fsdp.compute_dtype, config.fsdp.reshard_after_forward)


def make_optimizer(config: OptimConfig, steps: int, lm: SpeechLM) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """AdamW (weight decay on matrices only) and its schedule: linear warm-up, then cosine to a floor or constant."""
    params = [p for p in lm.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=tuple(config.betas))

    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        if config.schedule == "constant":
            return 1.0
        done = min((step - config.warmup_steps) / max(steps - config.warmup_steps, 1), 1.0)
        return config.min_lr_ratio + (1 - config.min_lr_ratio) * (1 + math.cos(math.pi * done)) / 2

    return optimizer, LambdaLR(optimizer, factor)
