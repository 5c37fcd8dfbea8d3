"""How many floating-point operations models do, from their configurations and the lengths that they read.

Counted are matrix products and convolutions, two operations a multiply-add, as torch.utils.flop_counter counts them;
a linear layer of N weights does 2 N a position forwards and 4 N backwards (Kaplan et al. 2020, arXiv 2001.08361,
section 2.1), and attention of one layer 4 n c q, for n queries of width q over c keys (Chowdhery et al. 2022, arXiv
2204.02311, appendix B). Keys that a causal mask hides are counted, as there. Not counted: norms, activations,
Fourier transforms, top-k, and what is computed twice to save memory.

Numbers are floats, so that means of a step can be given; work grows faster than length in attention only, where that
is a little too low. `config` is that of an arkasr, qwen3_asr, glmasr or whisper.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from arkasr.config.schema import PARTS

FRAMES = 100  # mel frames a second
BINS = 201  # of the spectrum that the mel filters read
PROMPT = {"arkasr": 10, "qwen3_asr": 16, "glmasr": 14, "whisper": 4}  # tokens beside the audio, published tokenizers


def _text(config: Any) -> Any:
    return config if config.model_type == "whisper" else config.text_config


def _stack(positions: float, context: float, width: int, queries: int, keys: int, ffn: int, matrices: int) -> float:
    """One layer: linear maps of every position, and attention of every position over `context` keys."""
    weights = width * (2 * queries + 2 * keys) + matrices * width * ffn
    return positions * (2 * weights + 4 * context * queries)


def audio_tokens(config: Any, seconds: float) -> float:
    """Return how many positions of the decoder's prompt a clip takes (0: it is heard by cross attention)."""
    frames = seconds * FRAMES
    if config.model_type == "arkasr":
        return max(frames / 2 // config.merge_factor, 1)
    if config.model_type == "glmasr":
        return max(frames / 2 // 4, 1)
    if config.model_type == "qwen3_asr":
        chunk = 2 * config.audio_config.n_window
        return frames // chunk * math.ceil(chunk / 8) + math.ceil(frames % chunk / 8)
    return 0


def encoding(config: Any, seconds: float) -> dict[str, float]:
    """Return FLOPs of `features` (mel filters), `encoder` (convolutions, blocks) and `adapter` for one clip, forwards."""
    kind, frames = config.model_type, seconds * FRAMES
    if kind == "qwen3_asr":
        return _chunked(config, frames)
    if kind == "whisper":
        d, layers, heads_width, ffn = config.d_model, config.encoder_layers, config.d_model, config.encoder_ffn_dim
        mel, frames, windows = config.num_mel_bins, 2 * config.max_source_positions, 1
    else:
        audio = config.audio_config
        d, layers, heads_width, ffn = (
            audio.hidden_size,
            audio.num_hidden_layers,
            audio.hidden_size,
            audio.intermediate_size,
        )
        mel, windows = audio.num_mel_bins, 1
        if kind == "glmasr":  # every window of 30 s is heard whole
            whole = 2 * audio.max_position_embeddings
            frames, windows = whole, math.ceil(frames / whole)
    states = math.ceil(frames / 2) if kind != "arkasr" else frames / 2
    stem = 6 * mel * d * frames + 6 * d * d * states
    blocks = layers * _stack(states, states, d, heads_width, heads_width, ffn, 2)
    work = {"features": 2 * BINS * mel * frames, "encoder": stem + blocks, "adapter": _adapter(config, states)}
    return {name: windows * each for name, each in work.items()}


def _adapter(config: Any, states: float) -> float:
    if config.model_type == "whisper":
        return 0.0
    factor, width = getattr(config, "merge_factor", 4), config.text_config.hidden_size
    return states // factor * 2 * (factor * config.audio_config.hidden_size * 2 * width + 2 * width * width)


def _chunked(config: Any, frames: float) -> dict[str, float]:
    """Qwen3-ASR: three strided 3 x 3 convolutions over padded chunks, attention inside windows, two linear maps."""
    audio = config.audio_config
    chunk, c, d = 2 * audio.n_window, audio.downsample_hidden_size, audio.d_model
    mel, length, given, stem = audio.num_mel_bins, chunk, 1, 0.0
    chunks = math.ceil(max(frames, 1) / chunk)
    for _ in range(3):
        mel, length = math.ceil(mel / 2), math.ceil(length / 2)
        stem, given = stem + chunks * 18 * given * c * mel * length, c
    stem += chunks * length * 2 * c * mel * d
    tokens, window = audio_tokens(config, frames / FRAMES), length * (audio.n_window_infer // chunk)
    whole, rest = divmod(tokens, window)
    block = lambda n: _stack(n, n, d, d, d, audio.encoder_ffn_dim, 2)
    blocks = audio.encoder_layers * (whole * block(window) + block(rest))
    features, adapter = 2 * BINS * audio.num_mel_bins * frames, 2 * tokens * (d * d + d * audio.output_dim)
    return {"features": features, "encoder": stem + blocks, "adapter": adapter}


def reading(config: Any, positions: float, context: float | None = None) -> float:
    """Return FLOPs of the decoder's blocks for one sequence, forwards, without the head.

    context: keys that each position attends to, `positions` where None: those of one pass over the sequence.
    """
    context = positions if context is None else context
    if config.model_type != "whisper":
        text = config.text_config
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        sizes = (text.hidden_size, text.num_attention_heads * head, text.num_key_value_heads * head)
        return text.num_hidden_layers * _stack(positions, context, *sizes, text.intermediate_size, 3)
    d, heard = config.d_model, config.max_source_positions
    own = _stack(positions, context, d, d, d, config.decoder_ffn_dim, 2)
    return config.decoder_layers * (own + positions * (4 * d * d + 4 * heard * d) + 4 * heard * d * d)


def head(config: Any, positions: float) -> float:
    """Return FLOPs of the logits of the whole vocabulary, forwards."""
    text = _text(config)
    return 2 * positions * text.vocab_size * text.hidden_size


@dataclass(frozen=True)
class Load:
    """What a step works on, added up over ranks and micro-batches.

    seconds: of audio in `clips` clips; tokens: of the student's `transcripts` (stop tokens included); rolled: of these
    tokens, those that the student wrote; teacher_tokens: what the teacher read of the same texts; prompts: tokens
    beside the audio, of student and teacher.
    """

    clips: float
    seconds: float
    transcripts: float
    tokens: float
    rolled: float = 0.0
    teacher_tokens: float = 0.0
    prompts: tuple[float, float] = (0.0, 0.0)


def _read_all(config: Any, load: Load, tokens: float, prompt: float) -> float:
    """The decoder's blocks over all prompts and transcripts, in one pass; the last token is not read."""
    seconds = load.seconds / load.clips
    length = audio_tokens(config, seconds) + prompt + tokens / load.transcripts - 1
    return load.transcripts * reading(config, length)


def _times_backwards(part: str, frozen: Collection[str]) -> int:
    """Times its forward work that a part does backwards: 2, or 1 for what is below it only, or 0."""
    below = PARTS[: PARTS.index(part)]
    return 2 if part not in frozen else int(any(other not in frozen for other in below))


def pass_with_gradient(
    config: Any, load: Load, frozen: Collection[str], logits: float, whole: float = 0.0, heard: bool = False
) -> dict[str, float]:
    """Return FLOPs `student` (forwards) and `backward` of one pass over audio and transcripts.

    logits: those of the head, forwards; whole: of those that `head.sum_in_parts` forms, whose gradient it finds on the
    way. heard: the rollout made the audio tokens, whose graph is carried on.
    """
    hearing = {name: load.clips * work for name, work in encoding(config, load.seconds / load.clips).items()}
    reads = _read_all(config, load, load.tokens, load.prompts[0]) + logits
    forward = hearing | {"decoder": reads}
    backward = sum(_times_backwards(name, frozen) * forward[name] for name in PARTS)
    whole *= 1 + _times_backwards("decoder", frozen)
    return {"student": (reads if heard else sum(forward.values())) + whole, "backward": backward}


def rolling_out(config: Any, load: Load) -> dict[str, float]:
    """Return FLOPs `rollout`: hearing and prefill, and `decode`: all tokens of a transcript but the first.

    Each transcript has a prompt of its own in the cache. What rows do that wait for longer ones is not counted.
    """
    mean, seconds = load.rolled / load.transcripts, load.seconds / load.clips
    prompt = audio_tokens(config, seconds) + load.prompts[0]
    hearing = load.clips * sum(encoding(config, seconds).values())
    share = load.rolled / load.tokens  # of the transcripts that were rolled out
    prefill = load.transcripts * (reading(config, prompt) + head(config, 1))
    later = load.rolled - share * load.transcripts
    decode = reading(config, later, prompt + mean / 2 + 1) + head(config, later)
    return {"rollout": hearing + share * prefill, "decode": decode}


def scoring(config: Any, load: Load) -> float:
    """Return FLOPs of a teacher that hears every transcript's clip and forms logits of the transcript's tokens."""
    heard = load.transcripts * sum(encoding(config, load.seconds / load.clips).values())
    return heard + _read_all(config, load, load.teacher_tokens, load.prompts[1]) + head(config, load.teacher_tokens)


def supervised(config: Any, load: Load, frozen: Collection[str] = (), ctc: bool = False) -> dict[str, float]:
    """Return FLOPs of a supervised step by phase; ctc: with the auxiliary head on the audio tokens."""
    rows = load.clips * audio_tokens(config, load.seconds / load.clips) if ctc else 0
    return pass_with_gradient(config, load, frozen, head(config, rows), head(config, load.tokens))


def distilling(
    student: Any, teacher: Any | None, load: Load, top_k: int, frozen: Collection[str] = (), dense: bool = False
) -> dict[str, float]:
    """Return FLOPs of an OPD step by phase; teacher None: one that computes elsewhere.

    dense: the loss compares whole distributions.
    """
    compared = 4 * load.tokens * top_k * student.text_config.hidden_size
    logits = (0.0, head(student, load.tokens)) if dense else (compared, 0.0)
    made = rolling_out(student, load) if load.rolled else {"rollout": 0.0, "decode": 0.0}
    made |= {"teacher": scoring(teacher, load) if teacher is not None else 0.0}
    return made | pass_with_gradient(student, load, frozen, *logits, heard=True)
