"""A dense rendering of Algorithm 1, as the published trainer computes it. `opd_step.py` lists what it does."""

from __future__ import annotations

import torch
from opd_case import Case, finish
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from arkasr import SpeechLM
from arkasr.data.batches import Batch
from arkasr.model.generation import cache_argument
from arkasr.utils.timing import Phases


def left_padded(prompts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad prompts on the left.

    Args:
        prompts: B embedded prompts [S_i, H].

    Returns:
        Embeddings [B, S, H], and attention mask [B, S], int64.
    """
    longest = max(map(len, prompts))
    embeds = torch.stack([pad(p, (0, 0, longest - len(p), 0)) for p in prompts])
    return embeds, torch.stack([pad(torch.ones(len(p)), (longest - len(p), 0)) for p in prompts]).long().to(
        embeds.device
    )


def reference_rollout(case: Case) -> tuple[list[list[int]], list[list[list[int]]]]:
    """Transcribe greedily, token by token (line 1 of Algorithm 1).

    Args:
        case: The inputs.

    Returns:
        Token ids of each clip, and the student's top-k ids at each of their positions.
    """
    lm = case.student
    ids: list[list[int]] = [[] for _ in case.batch.ids]
    candidates: list[list[list[int]]] = [[] for _ in case.batch.ids]
    embeds, mask = left_padded(lm.embed_prompts(lm.encode_audio(case.batch.waveforms), case.batch.languages))
    cache, done = DynamicCache(config=lm.hf.config.text_config), [False] * len(ids)
    cached = {cache_argument(lm.hf): cache, "use_cache": True}
    for _ in range(case.cap):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -embeds.shape[1] :]
        out = lm.hf(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, **cached)
        logits = out.logits[:, -1].float().masked_fill(lm.blocked, -torch.inf)
        chosen, best = logits.argmax(-1), logits.topk(case.top_k).indices
        for b in range(len(ids)):
            if not done[b]:
                ids[b].append(int(chosen[b]))
                candidates[b].append(best[b].tolist())
                done[b] = ids[b][-1] in lm.stop_ids
        if all(done):
            break
        embeds = lm.hf.get_input_embeddings()(chosen)[:, None]
        mask = torch.cat([mask, mask.new_ones(len(ids), 1)], dim=1)
    return ids, candidates


def reference_logits(lm: SpeechLM, batch: Batch, token_ids: list[list[int]], cap: int) -> tuple[Tensor, int]:
    """Compute logits of prompts and of transcripts that are padded to the cap.

    Args:
        lm: Student or teacher.
        batch: B clips.
        token_ids: Transcript of each clip.
        cap: Length to pad the transcripts to.

    Returns:
        Logits [B, S + cap, V], and the padded length S of the prompts.
    """
    embeds, mask = left_padded(lm.embed_prompts(lm.encode_audio(batch.waveforms), batch.languages))
    rows = torch.tensor([ids + [lm.tokenizer.pad_token_id] * (cap - len(ids)) for ids in token_ids], device=lm.device)
    full = torch.cat([mask, torch.ones_like(rows)], dim=1)
    positions = (full.cumsum(-1) - 1).clamp(min=0)
    text = lm.hf.get_input_embeddings()(rows)
    out = lm.hf(inputs_embeds=torch.cat([embeds, text], dim=1), attention_mask=full, position_ids=positions)
    return out.logits, embeds.shape[1]


def reference_supports(
    case: Case, pairs: list[tuple[int, int, int]], candidates: list[list[list[int]]], scores: Tensor
) -> list[tuple]:
    """Build the union support U_t, position by position. Positions with less than two tokens are left out.

    Args:
        case: The inputs.
        pairs: Clip, student position and teacher position of every scored position.
        candidates: The student's top-k ids at each position of each clip.
        scores: The teacher's log-probabilities [B, T, V].

    Returns:
        Clip, student position, student ids of U_t, and the teacher's log-probabilities of U_t.
    """
    supports = []
    for clip, student_position, teacher_position in pairs:
        row = scores[clip, teacher_position]
        found = {case.names[token]: token for token in row.topk(case.top_k).indices.tolist() if token in case.names}
        for token in candidates[clip][student_position]:
            if token in case.counterparts:
                found.setdefault(token, case.counterparts[token])
        if len(found) >= 2:
            supports.append((clip, student_position, list(found), [float(row[t]) for t in found.values()]))
    return supports


def reference_teacher(case: Case, ids: list[list[int]], candidates: list[list[list[int]]]) -> list[tuple]:
    """Score the transcripts with the teacher and build the supports (lines 2 to 4 and 6).

    Args:
        case: The inputs.
        ids: The student's token ids of each clip.
        candidates: The student's top-k ids at each position of each clip.

    Returns:
        See `reference_supports`.
    """
    alignment = case.mapper.align(ids)
    ends = [0], [0]
    for student_ids, teacher_ids in zip(ids, alignment.teacher_ids, strict=True):
        ends[0].append(ends[0][-1] + len(student_ids))
        ends[1].append(ends[1][-1] + len(teacher_ids))
    pairs = []
    for s, t in zip(alignment.student_rows.tolist(), alignment.teacher_rows.tolist(), strict=True):
        clip = next(i for i, end in enumerate(ends[0][1:]) if s < end)
        pairs.append((clip, s - ends[0][clip], t - ends[1][clip]))
    width = max(case.cap, *map(len, alignment.teacher_ids))
    logits, start = reference_logits(case.teacher.lm, case.batch, alignment.teacher_ids, width)
    scores = logits[:, start - 1 : -1].float().log_softmax(-1)  # at the transcripts' positions, padded to the cap
    return reference_supports(case, pairs, candidates, scores)


def reference_loss(case: Case, ids: list[list[int]], candidates: list[list[list[int]]], phases: Phases) -> Tensor:
    """Score transcripts with both models and compute the loss (lines 2 to 7).

    Args:
        case: The inputs.
        ids: The student's token ids of each clip.
        candidates: The student's top-k ids at each position of each clip.
        phases: Collects the times.

    Returns:
        The mean of the loss over positions, float32 scalar with gradient.
    """
    with phases("teacher"), torch.no_grad():
        supports = reference_teacher(case, ids, candidates)
    with phases("student"):
        logits, start = reference_logits(case.student, case.batch, ids, case.cap)
        clips, positions = [row[0] for row in supports], [start + row[1] - 1 for row in supports]
        tokens, wanted = (
            pad_sequence([torch.tensor(row[n], device=logits.device) for row in supports], batch_first=True)
            for n in (2, 3)
        )
        valid = pad_sequence([torch.ones(len(row[2]), device=logits.device) for row in supports], batch_first=True) > 0
        teacher = wanted.masked_fill(~valid, -torch.inf).log_softmax(-1)  # renormalised over U_t
        student = logits[clips, positions].float().gather(-1, tokens).masked_fill(~valid, -torch.inf).log_softmax(-1)
        return (teacher.exp() * (teacher - student).masked_fill(~valid, 0.0)).sum(-1).mean()  # KL(p_T || p_S)


def reference_step(case: Case, optimizer: torch.optim.Optimizer, phases: Phases) -> float:
    """Run one step of the reference implementation.

    Args:
        case: The inputs.
        optimizer: Updates the student.
        phases: Collects the times.

    Returns:
        The loss.
    """
    with phases("rollout"), torch.no_grad():
        ids, candidates = reference_rollout(case)
    return finish(reference_loss(case, ids, candidates, phases), optimizer, phases)
