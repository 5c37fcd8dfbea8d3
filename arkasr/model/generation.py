"""Greedy or sampled transcripts, with each step's top-k candidates where asked; no host synchronisation a token."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from arkasr.distributions.logits import best_tokens, head_logits
from arkasr.interfaces import SAMPLE_RATE
from arkasr.model.speech_lm.auto import SpeechLM

CHECK_EVERY = 4


@dataclass
class Generation:
    """Transcripts of B clips.

    ids: B lists, the stop id last where the model stopped; stopped: B flags (False: cut at the cap); topk: int64
    [sum(len(ids)), k] candidates, best first, in the order of the ids.
    """

    ids: list[list[int]]
    stopped: list[bool]
    topk: Tensor


def token_caps(waveforms: Sequence[Tensor], max_new_tokens: int, tokens_per_second: float) -> list[int]:
    """Cap each transcript by its audio: 2 + tokens_per_second * seconds, at most max_new_tokens.

    Two are left to a clip of no length: a token and the stop. tokens_per_second 0: max_new_tokens for all.
    """
    if tokens_per_second == 0:
        return [max_new_tokens] * len(waveforms)
    return [min(max_new_tokens, 2 + math.ceil(tokens_per_second * len(w) / SAMPLE_RATE)) for w in waveforms]


def _left_padded(prompts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    longest = max(len(p) for p in prompts)
    embeds = torch.stack([torch.nn.functional.pad(p, (0, 0, longest - len(p), 0)) for p in prompts])
    lengths = torch.tensor([len(p) for p in prompts], device=embeds.device)
    return embeds, torch.arange(longest, device=embeds.device) >= longest - lengths[:, None]


def _unread(mask: Tensor, lm: SpeechLM) -> Tensor:
    """Shape a mask [B, S] as attention takes it: transformers would ask it at every token whether it is all ones."""
    return mask[:, None, None] if lm.hf.model.language_model.config._attn_implementation == "sdpa" else mask


def nucleus(probs: Tensor, top_p: float) -> Tensor:
    """Set to 0 what is outside the fewest likeliest tokens of probs [B, V] that hold `top_p` together."""
    best, order = probs.sort(-1, descending=True)
    before = best.cumsum(-1) - best
    return torch.zeros_like(probs).scatter(-1, order, best.masked_fill(before >= top_p, 0.0))


def _choose(
    logits: Tensor, best: Tensor, temperature: float, top_p: float, generator: torch.Generator | None
) -> Tensor:
    if temperature == 0.0:
        return best[:, 0]
    probs = (logits / temperature).softmax(-1)
    return torch.multinomial(nucleus(probs, top_p) if top_p < 1.0 else probs, 1, generator=generator)[:, 0]


def cache_argument(module: nn.Module) -> str:
    """Return the name under which a transformers module takes its key-value cache.

    transformers 5.24 renamed `past_key_values` to `cache`; the old name is to be removed in 5.40.

    Args:
        module: A transformers model or decoder with a `forward` that can use a cache.

    Returns:
        "cache" or "past_key_values".
    """
    return "cache" if "cache" in inspect.signature(module.forward).parameters else "past_key_values"


@torch.no_grad()
def generate(
    lm: SpeechLM,
    prompts: Sequence[Tensor],
    caps: Sequence[int],
    top_k: int = 0,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    top_p: float = 1.0,
) -> Generation:
    """Continue B prompts [S_i, H] until a stop id or the clip's cap; temperature 0 is greedy.

    Blocked ids are never chosen nor among the candidates, which are the model's own whatever temperature and top_p.
    Without a generator torch's global one draws. Rows that are done leave the batch every few tokens, for which the
    cache must be able to shrink: a static one cannot, and at equal batch it was no faster on a CPU.
    """
    top_k = min(top_k, len(lm.blocked))
    embeds, mask = _left_padded(prompts)
    positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
    limits, stops = torch.tensor(caps, device=lm.device), torch.tensor(lm.stop_ids, device=lm.device)
    tokens = torch.full((len(prompts), max(caps)), -1, device=lm.device)
    top = torch.zeros(len(prompts), max(caps), top_k, dtype=torch.long, device=lm.device)
    rows, done = (
        torch.arange(len(prompts), device=lm.device),
        torch.zeros(len(prompts), dtype=torch.bool, device=lm.device),
    )
    cache, embed = DynamicCache(config=lm.hf.config.text_config), lm.hf.get_input_embeddings()
    decoder = lm.hf.model.language_model
    cached = {cache_argument(decoder): cache, "use_cache": True}
    for step in range(max(caps)):
        states = decoder(
            inputs_embeds=embeds,
            attention_mask=_unread(mask, lm) if step else mask,
            position_ids=positions,
            **cached,
        )
        logits = head_logits(states.last_hidden_state[:, -1], lm.head).masked_fill_(lm.blocked, -torch.inf)
        best = best_tokens(logits, max(1, top_k))[0]
        chosen = _choose(logits, best, temperature, top_p, generator)
        tokens[rows, step] = chosen
        top[rows, step] = best[:, :top_k]
        done = done | torch.isin(chosen, stops) | (limits[rows] <= step + 1)
        if step % CHECK_EVERY == CHECK_EVERY - 1 and bool(done.any()):
            keep = (~done).nonzero()[:, 0]
            if len(keep) == 0:
                break
            cache.batch_select_indices(keep)
            rows, chosen, mask, positions, done = rows[keep], chosen[keep], mask[keep], positions[keep], done[keep]
        embeds = embed(chosen)[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return _collect(tokens, top, limits, stops)


def _collect(tokens: Tensor, top: Tensor, limits: Tensor, stops: Tensor) -> Generation:
    """Cut every row after its first stop id or at its cap."""
    steps = torch.arange(tokens.shape[1], device=tokens.device)
    is_stop = torch.isin(tokens, stops) & (steps < limits[:, None])
    first = torch.where(is_stop, steps, tokens.shape[1]).amin(-1)
    lengths = torch.minimum(first + 1, limits)
    inside = steps < lengths[:, None]
    ids = [row[:n] for row, n in zip(tokens.tolist(), lengths.tolist())]
    return Generation(ids, (first < limits).tolist(), top[inside])


LONGEST_PATTERN, LEAST_REPEATS, LEAST_TOKENS = 24, 4, 12  # tokens: eight Chinese characters spelt in bytes


def is_looping(ids: Sequence[int], stop_ids: Collection[int] = ()) -> bool:
    """Tell whether ids end in a pattern of 1 to 24 tokens, four times or more and over 12 tokens or more.

    The last repetition may be cut: a loop of five tokens that the cap ends in its third token is one all the same.
    stop_ids: ids that are no part of the text.
    """
    ids = [i for i in ids if i not in stop_ids]
    for period in range(1, min(LONGEST_PATTERN, len(ids) // LEAST_REPEATS) + 1):
        covered = period
        while covered < len(ids) and ids[-1 - covered] == ids[-1 - covered + period]:
            covered += 1
        if covered >= max(LEAST_REPEATS * period, LEAST_TOKENS):
            return True
    return False
