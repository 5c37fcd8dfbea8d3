"""Times one whole OPD step against a plain dense rendering of Algorithm 1: same models, same clips, same supports.

    make demo && python benchmarks/opd_step.py --expdir egs/librispeech/exp/mini --datadir egs/librispeech/data/mini

The plain way does what the published trainer does: logits of all V tokens at every position of prompt and transcript,
scoring padded to the token cap, supports built in Python a position at a time, a host synchronisation a token, and
rows that are done go on computing. Both ways start from the same weights at every repeat; their losses must agree.
Each row of the table is a phase: the median over paired repeats, in seconds, and the ratio plain / ours. Peak memory is
of the allocator on a GPU, of the resident set on a CPU (Linux), by how much it exceeds what lay there before.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from arkasr import Loss, SpeechLM, Teacher, TokenMapper, config, load_speech_lm, plugins
from arkasr.data.batches import Batch, load_batch, read_cuts
from arkasr.distill.step import Opd
from arkasr.schema import DistillConfig, RolloutConfig
from arkasr.timing import Phases

PHASES = ("rollout", "teacher", "student", "backward", "optimizer")


@dataclass
class Case:
    """What both ways share."""

    student: SpeechLM
    teacher: Teacher
    mapper: TokenMapper
    loss: Loss
    batch: Batch
    top_k: int
    cap: int


def left_padded(prompts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad prompts [S_i, H] on the left; returns embeddings [B, S, H] and mask int64 [B, S]."""
    longest = max(map(len, prompts))
    embeds = torch.stack([pad(p, (0, 0, longest - len(p), 0)) for p in prompts])
    return embeds, torch.stack([pad(torch.ones(len(p)), (longest - len(p), 0)) for p in prompts]).long().to(
        embeds.device
    )


def plain_rollout(case: Case) -> tuple[list[list[int]], list[list[list[int]]]]:
    """Transcribe token by token; returns ids and top-k candidates as Python lists."""
    lm, ids, candidates = case.student, [[] for _ in case.batch.ids], [[] for _ in case.batch.ids]
    embeds, mask = left_padded(lm.embed_prompts(lm.encode_audio(case.batch.waveforms), case.batch.languages))
    cache, done = DynamicCache(config=lm.hf.config.text_config), [False] * len(ids)
    for _ in range(case.cap):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -embeds.shape[1] :]
        out = lm.hf(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
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


def plain_logits(lm: SpeechLM, batch: Batch, token_ids: list[list[int]], cap: int) -> tuple[Tensor, int]:
    """Score transcripts padded to the cap; returns logits [B, S + cap, V] and the prompts' width S."""
    embeds, mask = left_padded(lm.embed_prompts(lm.encode_audio(batch.waveforms), batch.languages))
    rows = torch.tensor([ids + [lm.tokenizer.pad_token_id] * (cap - len(ids)) for ids in token_ids], device=lm.device)
    full = torch.cat([mask, torch.ones_like(rows)], dim=1)
    positions = (full.cumsum(-1) - 1).clamp(min=0)
    text = lm.hf.get_input_embeddings()(rows)
    out = lm.hf(inputs_embeds=torch.cat([embeds, text], dim=1), attention_mask=full, position_ids=positions)
    return out.logits, embeds.shape[1]


def plain_supports(case: Case, teacher_ids, pairs, candidates, scores: Tensor, start: int) -> list[tuple]:
    """Build the union of both top-k sets a position at a time; returns clip, position, student ids, teacher scores."""
    made = []
    for clip, own, theirs in pairs:
        row = scores[clip, start + theirs - 1]
        found: dict[int, int] = {}
        for token in row.topk(case.top_k).indices.tolist():
            mapped = int(case.mapper.to_student(torch.tensor([token]))[0])
            if mapped >= 0:
                found[mapped] = token
        for token in candidates[clip][own]:
            mapped = int(case.mapper.to_teacher(torch.tensor([token]))[0])
            if mapped >= 0:
                found.setdefault(token, mapped)
        if len(found) >= 2:
            made.append((clip, own, list(found), [float(row[t]) for t in found.values()]))
    return made


def plain_step(case: Case, optimizer: torch.optim.Optimizer, phases: Phases) -> float:
    """Run Algorithm 1 the plain way; returns the loss."""
    with phases("rollout"), torch.no_grad():
        ids, candidates = plain_rollout(case)
    with phases("teacher"), torch.no_grad():
        alignment = case.mapper.align(ids)
        ends = [0], [0]
        for own, theirs in zip(ids, alignment.teacher_ids, strict=True):
            ends[0].append(ends[0][-1] + len(own))
            ends[1].append(ends[1][-1] + len(theirs))
        pairs = []
        for s, t in zip(alignment.student_rows.tolist(), alignment.teacher_rows.tolist(), strict=True):
            clip = next(i for i, end in enumerate(ends[0][1:]) if s < end)
            pairs.append((clip, s - ends[0][clip], t - ends[1][clip]))
        width = max(case.cap, *map(len, alignment.teacher_ids))
        logits, start = plain_logits(case.teacher.lm, case.batch, alignment.teacher_ids, width)
        supports = plain_supports(case, alignment.teacher_ids, pairs, candidates, logits.float().log_softmax(-1), start)
    with phases("student"):
        logits, start = plain_logits(case.student, case.batch, ids, case.cap)
        terms = []
        for clip, own, tokens, scores in supports:
            target = torch.tensor(scores, device=logits.device).log_softmax(-1)
            given = logits[clip, start + own - 1][tokens].float().log_softmax(-1)
            terms.append((target.exp() * (target - given)).sum())
        loss = torch.stack(terms).mean()
    return finish(loss, optimizer, phases)


def our_step(case: Case, optimizer: torch.optim.Optimizer, phases: Phases) -> float:
    """Run Algorithm 1 as arkasr does; returns the loss."""
    rollout = RolloutConfig(max_new_tokens=case.cap, tokens_per_second=1e6)
    opd = Opd(case.teacher, case.mapper, case.loss, rollout, DistillConfig(top_k=case.top_k))
    made = opd.collect(case.student, case.batch, phases)
    with phases("student"):
        total, count = opd.rescore(case.student, made)
    return finish(total / count, optimizer, phases)


def finish(loss: Tensor, optimizer: torch.optim.Optimizer, phases: Phases) -> float:
    """Backward and update."""
    with phases("backward"):
        loss.backward()
    with phases("optimizer"):
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def peak(case: Case, work) -> float:
    """Return MiB by which one step's peak exceeds what lay there before."""
    if case.student.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is the present size from here on
    before = resident("VmRSS")
    work()
    return (resident("VmHWM") - before) / 2**20


def resident(field: str) -> int:
    """Return a size of this process in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measure(case: Case, repeats: int) -> None:
    """Run both ways in turn and print the table."""
    weights = {k: v.clone() for k, v in case.student.state_dict().items()}
    seconds, losses, memory = {"plain": [], "ours": []}, {}, {}
    for repeat in range(repeats + 1):
        for name, step in (("plain", plain_step), ("ours", our_step)):
            case.student.load_state_dict(weights)
            optimizer, phases = torch.optim.AdamW(case.student.parameters(), lr=1e-4), Phases(case.student.device.type)
            started = time.perf_counter()
            if repeat == 0:  # warm-up, and what is measured once
                memory[name] = peak(case, lambda s=step, o=optimizer, p=phases: losses.update({name: s(case, o, p)}))
                continue
            step(case, optimizer, phases)
            seconds[name].append(phases.seconds | {"step": time.perf_counter() - started})
    report(case, seconds, losses, memory)


def report(case: Case, seconds: dict, losses: dict[str, float], memory: dict[str, float]) -> None:
    """Print phases, utterances a second, memory and both losses as a Markdown table."""
    clips = len(case.batch.ids)
    print(
        f"{clips} clips, {case.batch.seconds:.0f} s of audio, k = {case.top_k}, cap {case.cap}, {case.student.device}\n"
    )
    print("| phase | plain | ours | plain / ours |\n| --- | ---: | ---: | ---: |")
    for phase in (*PHASES, "step"):
        plain, ours = (statistics.median(row.get(phase, 0.0) for row in seconds[way]) for way in ("plain", "ours"))
        print(f"| {phase} (s) | {plain:.3f} | {ours:.3f} | {plain / max(ours, 1e-9):.1f} |")
    ratio = statistics.median(a["step"] / b["step"] for a, b in zip(seconds["plain"], seconds["ours"], strict=True))
    rate = {way: clips / statistics.median(row["step"] for row in rows) for way, rows in seconds.items()}
    print(f"| utterances/s | {rate['plain']:.1f} | {rate['ours']:.1f} | {1 / ratio:.3f} ({ratio:.1f} x as many) |")
    print(
        f"| peak memory (MiB) | {memory['plain']:.0f} | {memory['ours']:.0f} "
        f"| {memory['plain'] / max(memory['ours'], 1):.1f} |"
    )
    print(f"| loss | {losses['plain']:.6f} | {losses['ours']:.6f} | |")


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, load the trained runs and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expdir", required=True, help="holds base/final and base_opd/config.yaml")
    parser.add_argument("--datadir", required=True)
    parser.add_argument("--clips", type=int, default=40, help="clips a batch (the published launcher: 40)")
    parser.add_argument("--cap", type=int, default=64, help="token cap of a rollout (the published launcher: 64)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    made = config.read(Path(args.expdir) / "base_opd" / "config.yaml")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    student = load_speech_lm(str(Path(args.expdir) / "base" / "final"), device=device)
    trained = Path(args.expdir) / "teacher" / "final"  # the config's own path may be relative to the recipe
    options = made.teacher.options | ({"path": str(trained)} if trained.is_dir() else {})
    teacher = plugins.create("teacher", made.teacher.name, options, device=device)
    mapper = plugins.create("token_mapper", made.mapper.name, made.mapper.options, student=student, teacher=teacher)
    loss = plugins.create("loss", made.loss.name, made.loss.options)
    batch = load_batch(list(read_cuts(str(Path(args.datadir) / "base.jsonl.gz")))[: args.clips])
    measure(Case(student, teacher, mapper, loss, batch, made.distill.top_k, args.cap), args.repeats)


if __name__ == "__main__":
    main()
