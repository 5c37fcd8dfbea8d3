"""Greedy and sampled decoding with a key-value cache, without a host synchronisation at every token.

Shapes: B clips, S_i prompt positions of clip i, H the decoder's hidden size, V vocabulary size, k top-k.
"""

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

CHECK_EVERY = 4  # decoding steps between two checks for finished clips, which synchronise with the GPU
MAX_PERIOD = 24  # tokens of the longest pattern that counts as a loop: eight Chinese characters as UTF-8 bytes
MIN_REPEATS = 4  # of the pattern
MIN_TOKENS = 12  # covered by the repetitions


@dataclass
class Generation:
    """Transcripts of B clips.

    Attributes:
        ids: B lists of token ids. The last id is a stop id if the model stopped.
        stopped: B flags. False: the transcript was cut at its token cap.
        topk: Tensor [sum(len(ids)), k], int64, the k best allowed ids at each step, best first, in the order of `ids`.
    """

    ids: list[list[int]]
    stopped: list[bool]
    topk: Tensor


def token_caps(waveforms: Sequence[Tensor], max_new_tokens: int, tokens_per_second: float) -> list[int]:
    """Return the maximum number of tokens of each transcript: min(max_new_tokens, 2 + ceil(tokens_per_second * s)).

    s is the duration in seconds. The constant 2 leaves room for one token and the stop token in the shortest clip.

    Args:
        waveforms: B tensors [num_samples] at 16 kHz.
        max_new_tokens: Upper limit for all clips.
        tokens_per_second: Tokens per second of audio. 0 applies `max_new_tokens` to all clips.

    Returns:
        B numbers of tokens, the stop token included.
    """
    if tokens_per_second == 0:
        return [max_new_tokens] * len(waveforms)
    return [min(max_new_tokens, 2 + math.ceil(tokens_per_second * len(w) / SAMPLE_RATE)) for w in waveforms]


def cache_argument(module: nn.Module) -> str:
    """Return the name of the argument by which a transformers module takes its key-value cache.

    transformers 5.24 renamed `past_key_values` to `cache` and will remove the old name in 5.40.

    Args:
        module: A transformers model or decoder whose `forward` can use a cache.

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
    """Continue B prompts until a stop id or the clip's token cap.

    Blocked ids (`SpeechLM.blocked`) are never chosen and never among the top k. Finished clips leave the batch every
    `CHECK_EVERY` steps, so the key-value cache must be able to shrink. A static cache cannot, and on a CPU it was not
    faster at equal batch size.

    Args:
        lm: The model.
        prompts: B tensors [S_i, H] from `SpeechLM.embed_prompts`.
        caps: B maximum numbers of tokens, the stop token included (see `token_caps`). 0 or less writes nothing.
        top_k: Number of best ids to return for each step, limited to V. They come from the model's own distribution,
            without `temperature` and `top_p`.
        temperature: 0 decodes greedily. Otherwise logits are divided by it before sampling.
        generator: Source of the random draws. None uses torch's global generator.
        top_p: Nucleus sampling: draw from the smallest set of tokens with at least this probability. 1 uses all.

    Returns:
        Transcripts and top-k ids of the B clips, in the order of `prompts`.
    """
    top_k = min(top_k, len(lm.blocked))
    if not prompts:
        return Generation([], [], torch.zeros(0, top_k, dtype=torch.long, device=lm.device))
    embeds, mask = _left_pad(prompts)
    positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
    limits, stops = torch.tensor(caps, device=lm.device).clamp(min=0), torch.tensor(lm.stop_ids, device=lm.device)
    width = max(1, *caps)
    tokens = torch.full((len(prompts), width), -1, device=lm.device)
    topk = torch.zeros(len(prompts), width, top_k, dtype=torch.long, device=lm.device)
    rows = torch.arange(len(prompts), device=lm.device)
    done = torch.zeros(len(prompts), dtype=torch.bool, device=lm.device)
    cache, embed = DynamicCache(config=lm.hf.config.text_config), lm.hf.get_input_embeddings()
    decoder = lm.hf.model.language_model
    cached = {cache_argument(decoder): cache, "use_cache": True}
    for step in range(max(caps)):
        states = decoder(
            inputs_embeds=embeds,
            attention_mask=_expand_mask(mask, lm) if step else mask,
            position_ids=positions,
            **cached,
        )
        logits = head_logits(states.last_hidden_state[:, -1], lm.head).masked_fill_(lm.blocked, -torch.inf)
        best = best_tokens(logits, max(1, top_k))[0]
        chosen = _choose(logits, best, temperature, top_p, generator)
        tokens[rows, step] = chosen
        topk[rows, step] = best[:, :top_k]
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
    return _collect(tokens, topk, limits, stops)


def _left_pad(prompts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return prompts as one batch [B, S, H] and its mask, bool [B, S]."""
    longest = max(len(p) for p in prompts)
    embeds = torch.stack([torch.nn.functional.pad(p, (0, 0, longest - len(p), 0)) for p in prompts])
    lengths = torch.tensor([len(p) for p in prompts], device=embeds.device)
    return embeds, torch.arange(longest, device=embeds.device) >= longest - lengths[:, None]


def _expand_mask(mask: Tensor, lm: SpeechLM) -> Tensor:
    """Return a mask [B, S] as SDPA reads it, [B, 1, 1, S].

    transformers would otherwise check in each step whether the mask is all ones, which synchronises with the GPU.
    """
    return mask[:, None, None] if lm.hf.model.language_model.config._attn_implementation == "sdpa" else mask


def nucleus(probs: Tensor, top_p: float) -> Tensor:
    """Set the probabilities outside the nucleus to 0 (Holtzman et al. 2020, arXiv 1904.09751, section 3.1).

    Args:
        probs: Tensor [B, V], probabilities.
        top_p: The nucleus is the smallest set of most likely tokens whose probabilities sum to at least this.

    Returns:
        Tensor [B, V]. The remaining probabilities are unchanged, not renormalised.
    """
    best, order = probs.sort(-1, descending=True)
    before = best.cumsum(-1) - best
    return torch.zeros_like(probs).scatter(-1, order, best.masked_fill(before >= top_p, 0.0))


def _choose(
    logits: Tensor, best: Tensor, temperature: float, top_p: float, generator: torch.Generator | None
) -> Tensor:
    if temperature == 0.0:
        return best[:, 0]
    probs = (logits / temperature).softmax(-1).nan_to_num(0.0)
    lost = probs.sum(-1, keepdim=True) == 0  # logits of a diverged model: draw as greedy decoding does
    probs = probs.scatter_add(-1, best[:, :1], lost.to(probs.dtype))
    return torch.multinomial(nucleus(probs, top_p) if top_p < 1.0 else probs, 1, generator=generator)[:, 0]


def _collect(tokens: Tensor, topk: Tensor, limits: Tensor, stops: Tensor) -> Generation:
    """Cut each transcript after its first stop id or at its token cap."""
    steps = torch.arange(tokens.shape[1], device=tokens.device)
    is_stop = torch.isin(tokens, stops) & (steps < limits[:, None])
    first = torch.where(is_stop, steps, tokens.shape[1]).amin(-1)
    lengths = torch.minimum(first + 1, limits)
    inside = steps < lengths[:, None]
    ids = [row[:n] for row, n in zip(tokens.tolist(), lengths.tolist())]
    return Generation(ids, (first < limits).tolist(), topk[inside])


def is_looping(ids: Sequence[int], stop_ids: Collection[int] = ()) -> bool:
    """Return whether a transcript ends in a loop.

    A loop is a pattern of 1 to 24 tokens that occurs at least four times in succession. Together the occurrences cover
    at least 12 tokens. The last one may be incomplete, because the token cap can cut it anywhere.

    Args:
        ids: Token ids of the transcript.
        stop_ids: Ids that are not part of the text. They are ignored.

    Returns:
        Whether the ids without the stop ids end in a loop.
    """
    ids = [i for i in ids if i not in stop_ids]
    for period in range(1, min(MAX_PERIOD, len(ids) // MIN_REPEATS) + 1):
        covered = period
        while covered < len(ids) and ids[-1 - covered] == ids[-1 - covered + period]:
            covered += 1
        if covered >= max(MIN_REPEATS * period, MIN_TOKENS):
            return True
    return False
