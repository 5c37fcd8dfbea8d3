"""Times one whole OPD step against a plain dense rendering of Algorithm 1: same models, same clips, same supports.

    python benchmarks/opd_step.py --fresh paper --dtype bfloat16                  # the published sizes, on a GPU
    python benchmarks/opd_step.py --fresh mini --clips 8 --cap 32                 # small bodies, the true vocabulary
    python benchmarks/opd_step.py --expdir egs/librispeech/exp/mini --datadir egs/librispeech/data/mini  # after a demo

With --fresh both models have random weights, one vocabulary of --vocab tokens, and clips of noise; rollouts then end at
the cap. With --expdir they are a demo's own.

The plain way does what the published trainer does: logits of all V tokens at every position of prompt and transcript,
scoring padded to the token cap, supports built in Python a position at a time, a host synchronisation a token and clip,
and rows that are done go on computing. Both ways start from the same weights at every repeat; their losses must agree.
Each row of the table is a phase: the median over paired repeats, in seconds, and the ratio plain / ours. Peak memory is
of the allocator on a GPU, of the resident set on a CPU (Linux), by how much it exceeds what lay there before.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fresh
import torch
from measured import peak_bytes
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from arkasr import Loss, SpeechLM, Teacher, TokenMapper, load_speech_lm
from arkasr.config.load import read_config
from arkasr.config.schema import DistillConfig, RolloutConfig
from arkasr.data.batches import Batch, load_batch
from arkasr.data.manifests import read_cuts
from arkasr.distill.step import Opd
from arkasr.model.generation import cache_argument
from arkasr.plugins import registry
from arkasr.utils.timing import Phases

Step = Callable[..., float]
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

    def __post_init__(self):
        """Hold the mapper as Python dictionaries too: student ids by teacher id (names), and the other way."""
        ours = torch.arange(len(self.student.blocked))
        theirs = torch.arange(len(self.teacher.tokenizer))
        self.counterparts, self.names = (
            {i: j for i, j in zip(ids.tolist(), mapped.tolist()) if j >= 0}
            for ids, mapped in ((ours, self.mapper.to_teacher(ours)), (theirs, self.mapper.to_student(theirs)))
        )


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


def plain_logits(lm: SpeechLM, batch: Batch, token_ids: list[list[int]], cap: int) -> tuple[Tensor, int]:
    """Score transcripts padded to the cap; returns logits [B, S + cap, V] and the prompts' width S."""
    embeds, mask = left_padded(lm.embed_prompts(lm.encode_audio(batch.waveforms), batch.languages))
    rows = torch.tensor([ids + [lm.tokenizer.pad_token_id] * (cap - len(ids)) for ids in token_ids], device=lm.device)
    full = torch.cat([mask, torch.ones_like(rows)], dim=1)
    positions = (full.cumsum(-1) - 1).clamp(min=0)
    text = lm.hf.get_input_embeddings()(rows)
    out = lm.hf(inputs_embeds=torch.cat([embeds, text], dim=1), attention_mask=full, position_ids=positions)
    return out.logits, embeds.shape[1]


def plain_supports(case: Case, pairs, candidates, scores: Tensor) -> list[tuple]:
    """Build the union of both top-k sets a position at a time; returns clip, position, student ids, teacher scores."""
    made = []
    for clip, own, theirs in pairs:
        row = scores[clip, theirs]
        found = {case.names[token]: token for token in row.topk(case.top_k).indices.tolist() if token in case.names}
        for token in candidates[clip][own]:
            if token in case.counterparts:
                found.setdefault(token, case.counterparts[token])
        if len(found) >= 2:
            made.append((clip, own, list(found), [float(row[t]) for t in found.values()]))
    return made


def plain_teacher(case: Case, ids: list[list[int]], candidates: list[list[list[int]]]) -> list[tuple]:
    """Score the transcripts by the teacher and build their supports, see plain_supports."""
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
    scores = logits[:, start - 1 : -1].float().log_softmax(-1)  # of the transcripts, padded to the cap
    return plain_supports(case, pairs, candidates, scores)


def plain_step(case: Case, optimizer: torch.optim.Optimizer, phases: Phases) -> float:
    """Run Algorithm 1 the plain way; returns the loss."""
    with phases("rollout"), torch.no_grad():
        ids, candidates = plain_rollout(case)
    with phases("teacher"), torch.no_grad():
        supports = plain_teacher(case, ids, candidates)
    with phases("student"):
        logits, start = plain_logits(case.student, case.batch, ids, case.cap)
        clips, at = [row[0] for row in supports], [start + row[1] - 1 for row in supports]
        ids, wanted = (
            pad_sequence([torch.tensor(row[n], device=logits.device) for row in supports], batch_first=True)
            for n in (2, 3)
        )
        valid = pad_sequence([torch.ones(len(row[2]), device=logits.device) for row in supports], batch_first=True) > 0
        target = wanted.masked_fill(~valid, -torch.inf).log_softmax(-1)
        given = logits[clips, at].float().gather(-1, ids).masked_fill(~valid, -torch.inf).log_softmax(-1)
        loss = (target.exp() * (target - given).masked_fill(~valid, 0.0)).sum(-1).mean()
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


def measure(case: Case, repeats: int) -> None:
    """Run both ways in turn and print the table."""
    weights = {k: v.clone() for k, v in case.student.state_dict().items()}
    seconds, losses, memory = {"plain": [], "ours": []}, {}, {}
    ways: dict[str, Step] = {"plain": plain_step, "ours": our_step}
    for repeat in range(repeats + 1):
        for name, step in ways.items():
            case.student.load_state_dict(weights)
            optimizer, phases = torch.optim.AdamW(case.student.parameters(), lr=1e-4), Phases(case.student.device.type)
            started = time.perf_counter()
            if repeat == 0:  # warm-up, and what is measured once

                def work(
                    name: str = name, step: Step = step, optimizer: Any = optimizer, phases: Phases = phases
                ) -> None:
                    losses[name] = step(case, optimizer, phases)

                memory[name] = peak_bytes(work, case.student.device.type)
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
    plain, ours = memory["plain"] / 2**20, memory["ours"] / 2**20
    print(f"| peak memory (MiB) | {plain:.0f} | {ours:.0f} | {plain / max(ours, 1):.1f} |")
    print(f"| loss | {losses['plain']:.6f} | {losses['ours']:.6f} | |")


def fresh_case(args: argparse.Namespace, device: str) -> Case:
    """Make models with random weights over one vocabulary, and clips of noise."""
    words = fresh.tokenizer(args.vocab)
    student = fresh.student(args.fresh, words, device, args.dtype)
    with TemporaryDirectory() as folder:  # through a folder, so that the teacher is the plugin itself
        fresh.teacher(args.fresh, words, device, args.dtype).save(Path(folder))
        teacher = registry.create("teacher", "qwen3_asr", {"path": folder, "dtype": args.dtype}, device=device)
    made = fresh.clips(args.clips, args.seconds)
    batch = Batch([f"clip-{i}" for i in range(len(made))], made, [""] * len(made), ["English"] * len(made))
    mapper = registry.create("token_mapper", "identity", {}, student=student, teacher=teacher)
    return Case(student, teacher, mapper, registry.create("loss", "union_topk_kl", {}), batch, args.top_k, args.cap)


def trained_case(args: argparse.Namespace, device: str) -> Case:
    """Load a demo's Base and teacher, and its clips."""
    made = read_config(Path(args.expdir) / "base_opd" / "config.yaml")
    student = load_speech_lm(str(Path(args.expdir) / "base" / "final"), device=device)
    trained = Path(args.expdir) / "teacher" / "final"  # the config's own path may be relative to the recipe
    options = made.teacher.options | ({"path": str(trained)} if trained.is_dir() else {})
    teacher = registry.create("teacher", made.teacher.name, options, device=device)
    mapper = registry.create("token_mapper", made.mapper.name, made.mapper.options, student=student, teacher=teacher)
    loss = registry.create("loss", made.loss.name, made.loss.options)
    batch = load_batch(list(read_cuts(str(Path(args.datadir) / "base.jsonl.gz")))[: args.clips])
    return Case(student, teacher, mapper, loss, batch, made.distill.top_k, args.cap)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, make or load the models and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = parser.add_mutually_exclusive_group(required=True)
    models.add_argument("--fresh", choices=list(fresh.STUDENTS), help="random weights at these sizes")
    models.add_argument("--expdir", help="a demo's results: holds base/final and base_opd/config.yaml")
    parser.add_argument("--datadir", help="the demo's cuts, with --expdir")
    parser.add_argument("--vocab", type=int, default=151936, help="tokens of fresh models (Qwen2.5's by default)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a noise clip")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of fresh models")
    parser.add_argument("--top_k", type=int, default=32, help="with --fresh; a demo brings its own")
    parser.add_argument("--clips", type=int, default=40, help="clips a batch (the published launcher: 40)")
    parser.add_argument("--cap", type=int, default=64, help="token cap of a rollout (the published launcher: 64)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    if args.expdir and not args.datadir:
        parser.error("--expdir needs --datadir, the demo's cuts")
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    measure(fresh_case(args, device) if args.fresh else trained_case(args, device), args.repeats)


if __name__ == "__main__":
    main()
