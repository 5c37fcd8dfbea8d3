"""Prompts of a few clips, and the comparison of two generations."""

from __future__ import annotations

import torch
from tiny import waveform

SIZES = [16000, 4000, 9000, 24000, 160, 12345]


def prompts_of(lm, sizes=SIZES):
    """Return the prompts of clips of these lengths in samples."""
    with torch.no_grad():
        clips = [waveform(n, seed=i) for i, n in enumerate(sizes)]
        return lm.embed_prompts(lm.encode_audio(clips), ["English"] * len(sizes))


def same(a, b):
    """Return whether two generations have the same ids, stop flags and top-k ids."""
    return a.ids == b.ids and a.stopped == b.stopped and torch.equal(a.topk, b.topk)


@torch.no_grad()
def plain_sampling(lm, prompts, caps, temperature, generator, top_p=1.0, every=4):
    """Sample ids by full forward passes without a cache. Finished rows leave every `every` tokens, as in `generate`."""
    embed, rows, ids = lm.hf.get_input_embeddings().weight, list(range(len(prompts))), [[] for _ in prompts]
    for step in range(max(caps)):
        logits = torch.stack(
            [lm.hf(inputs_embeds=torch.cat([prompts[r], embed[ids[r]]])[None]).logits[0, -1] for r in rows]
        )
        probs = (logits.float().masked_fill(lm.blocked, -torch.inf) / temperature).softmax(-1)
        for row in probs if top_p < 1 else ():
            total = 0.0
            for token in row.argsort(descending=True).tolist():
                before, total = total, total + float(row[token])
                row[token] = row[token] if before < top_p else 0.0
        for r, token in zip(rows, torch.multinomial(probs, 1, generator=generator)[:, 0].tolist()):
            ids[r].append(token)
        if step % every == every - 1:
            rows = [r for r in rows if caps[r] > step + 1 and not any(i in lm.stop_ids for i in ids[r])]
            if not rows:
                break
    return [cut(row[:cap], lm.stop_ids) for row, cap in zip(ids, caps)]


def cut(ids, stop_ids):
    """Return the ids up to the first stop id."""
    ends = [place for place, i in enumerate(ids) if i in stop_ids]
    return ids[: ends[0] + 1] if ends else ids
