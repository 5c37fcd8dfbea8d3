"""Setup of one run: its model."""

from __future__ import annotations

from pathlib import Path

from arkasr.config.schema import Config
from arkasr.errors import UserError
from arkasr.model.build import assemble, student_sizes
from arkasr.model.ctc_head import FILE as CTC_HEAD
from arkasr.model.ctc_head import read_ctc_head
from arkasr.model.dropout import add_dropout
from arkasr.model.encoder_cache import EncoderCache, encoder_digest
from arkasr.model.loading import load_speech_lm
from arkasr.model.lora import train_parts
from arkasr.model.sharding import checkpoint_blocks, shard
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.training.random_state import seed_generators
from arkasr.training.ranks import Ranks
from arkasr.training.rounding import shift_last_places
from arkasr.training.run_tokenizer import ctc_tokenizer, run_tokenizer
from arkasr.utils.console import log


def make_model(config: Config, folder: Path, ranks: Ranks) -> SpeechLM:
    """Load or build the student, freeze parts of it, add adapters or a CTC head if they are asked for, and shard it.

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
        lm = load_parent(config)
    else:
        student_sizes(config.model, 0)  # reports wrong sizes before a tokenizer is trained
        lm = assemble(config.model, run_tokenizer(config, folder, ranks))
    if config.model.mask_padding is not None:
        lm.hf.config.mask_padding = config.model.mask_padding
    if lm.max_seconds is not None and config.data.max_clip_seconds > lm.max_seconds:
        raise UserError(
            f"config key `data.max_clip_seconds` {config.data.max_clip_seconds:g}: the encoder has learned positions "
            f"for {lm.max_seconds:g} s; set it to at most {lm.max_seconds:g}, or use an encoder with rotary positions"
        )
    train_parts(lm, config.model)
    add_dropout(lm, config.model.dropout)
    if config.train.ctc_weight > 0:
        lm.add_ctc_head(ctc_tokenizer(config, folder, ranks))
        if read_ctc_head(lm, config.model.path):
            log(f"the CTC head continues from {Path(config.model.path) / CTC_HEAD}")
    shift_last_places(lm, config.rounding)
    if config.train.cache_encoder:
        lm.encoder_cache = _encoder_cache(config, lm, ranks)
    if ranks.rank:
        seed_generators(config.seed, ranks.rank)
    lm = lm.to(ranks.device).train()
    if config.fsdp.activation_checkpointing == "blocks":
        checkpoint_blocks(lm)
    if ranks.mesh is None:
        return lm
    return shard(lm, ranks.mesh, config.fsdp.compute_dtype, config.fsdp.reshard_after_forward)


def _encoder_cache(config: Config, lm: SpeechLM, ranks: Ranks) -> EncoderCache:
    limit, folder = config.train.cache_encoder, config.train.cache_folder
    key = f"config key `train.cache_encoder` must be 0 (no cache), got {limit:g}"
    if ranks.world_size > 1:  # a rank that finds all its clips would not gather the weights that another rank needs
        raise UserError(f"{key}: {ranks.world_size} ranks share the encoder; set it to 0, or train with one rank")
    if not getattr(lm.hf.config, "mask_padding", True):
        raise UserError(f"{key}: the encoder attends to padding; set it to 0, or set model.mask_padding=true")
    digest = encoder_digest(lm.hf.model.audio_tower, config.fsdp.compute_dtype)
    return EncoderCache(limit, Path(folder) / digest if folder else None)


def load_parent(config: Config) -> SpeechLM:
    """Load the model that a run starts from.

    Args:
        config: The run's configuration, with `model.path`.

    Returns:
        The model in evaluation mode on the CPU.

    Raises:
        UserError: It cannot be read, or has another type than `model.type`.
    """
    lm = load_speech_lm(config.model.path, config.model.dtype, allow_pickle=config.model.allow_pickle)
    found = lm.hf.config.model_type
    if found != config.model.type:
        raise UserError(
            f"config key `model.path` {config.model.path}: holds a model of type {found}, but `model.type` is "
            f"{config.model.type}; change one of them"
        )
    return lm
