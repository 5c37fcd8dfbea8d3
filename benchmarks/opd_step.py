"""Compare one whole OPD step of arkasr against a dense reference implementation of Algorithm 1.

    python benchmarks/opd_step.py --fresh paper --dtype bfloat16                  # the published sizes, on one GPU
    python benchmarks/opd_step.py --fresh mini --clips 8 --cap 32                 # small bodies, the true vocabulary
    python benchmarks/opd_step.py --expdir egs/librispeech/exp/mini --datadir egs/librispeech/data/mini  # after a demo

--fresh gives both models random weights and one vocabulary of --vocab tokens, and uses clips of noise. Every rollout
then ends at its token cap. --expdir uses the models, the clips and the top_k of a demo run.

The reference does what the published trainer does:

- It forms logits of all V tokens at every position of prompt and transcript.
- It pads transcripts to the token cap for scoring.
- It builds supports in Python, position by position.
- It synchronises with the GPU once per token and clip.
- It continues to compute rows that have already ended.

Both implementations use the same models, clips and supports, and start from the same weights at every repeat. Their
losses must agree. Each row of the table is one phase: the median over paired repeats in seconds, and the ratio
reference / arkasr. Peak memory is that above the memory in use before: of torch's allocator on GPUs, of the process's
resident set on CPUs (Linux).
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
    """The inputs of both implementations.

    Attributes:
        student: The student, whose weights change.
        teacher: The frozen teacher.
        mapper: The token mapper between their vocabularies.
        loss: The loss.
        batch: The clips.
        top_k: Tokens of each top-k set.
        cap: Largest number of tokens of a rollout.
        counterparts: Teacher id of each student id that has one. Computed.
        names: Student id of each teacher id that has one. Computed.
    """

    student: SpeechLM
    teacher: Teacher
    mapper: TokenMapper
    loss: Loss
    batch: Batch
    top_k: int
    cap: int

    def __post_init__(self):
        student_ids = torch.arange(len(self.student.blocked))
        teacher_ids = torch.arange(len(self.teacher.tokenizer))
        self.counterparts, self.names = (
            {i: j for i, j in zip(ids.tolist(), mapped.tolist()) if j >= 0}
            for ids, mapped in (
                (student_ids, self.mapper.to_teacher(student_ids)),
                (teacher_ids, self.mapper.to_student(teacher_ids)),
            )
        )


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
    with phases("teacher"), torch.no_grad():
        supports = reference_teacher(case, ids, candidates)
    with phases("student"):
        logits, start = reference_logits(case.student, case.batch, ids, case.cap)
        clips, positions = [row[0] for row in supports], [start + row[1] - 1 for row in supports]
        ids, wanted = (
            pad_sequence([torch.tensor(row[n], device=logits.device) for row in supports], batch_first=True)
            for n in (2, 3)
        )
        valid = pad_sequence([torch.ones(len(row[2]), device=logits.device) for row in supports], batch_first=True) > 0
        teacher = wanted.masked_fill(~valid, -torch.inf).log_softmax(-1)  # renormalised over U_t
        student = logits[clips, positions].float().gather(-1, ids).masked_fill(~valid, -torch.inf).log_softmax(-1)
        loss = (teacher.exp() * (teacher - student).masked_fill(~valid, 0.0)).sum(-1).mean()  # KL(p_T || p_S)
    return finish(loss, optimizer, phases)


def arkasr_step(case: Case, optimizer: torch.optim.Optimizer, phases: Phases) -> float:
    """Run one step of arkasr.

    Args:
        case: The inputs.
        optimizer: Updates the student.
        phases: Collects the times.

    Returns:
        The loss.
    """
    rollout = RolloutConfig(max_new_tokens=case.cap, tokens_per_second=1e6)
    opd = Opd(case.teacher, case.mapper, case.loss, rollout, DistillConfig(top_k=case.top_k))
    scored = opd.collect(case.student, case.batch, phases)
    with phases("student"):
        total, count = opd.rescore(case.student, scored)
    return finish(total / count, optimizer, phases)


def finish(loss: Tensor, optimizer: torch.optim.Optimizer, phases: Phases) -> float:
    """Run the backward pass and update the student.

    Args:
        loss: The loss.
        optimizer: Updates the student.
        phases: Collects the times.

    Returns:
        The loss as a number.
    """
    with phases("backward"):
        loss.backward()
    with phases("optimizer"):
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def measure(case: Case, repeats: int) -> None:
    """Run both implementations in turn and print the table.

    Args:
        case: The inputs.
        repeats: Number of timed repeats after the warm-up.
    """
    weights = {k: v.clone() for k, v in case.student.state_dict().items()}
    ways: dict[str, Step] = {"reference": reference_step, "arkasr": arkasr_step}
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    losses: dict[str, float] = {}
    memory: dict[str, float] = {}
    for repeat in range(repeats + 1):
        for name, step in ways.items():
            case.student.load_state_dict(weights)
            optimizer, phases = torch.optim.AdamW(case.student.parameters(), lr=1e-4), Phases(case.student.device.type)
            started = time.perf_counter()
            if repeat == 0:  # warm-up, which also gives loss and memory

                def work(
                    name: str = name, step: Step = step, optimizer: Any = optimizer, phases: Phases = phases
                ) -> None:
                    losses[name] = step(case, optimizer, phases)

                memory[name] = peak_bytes(work, case.student.device.type)
                continue
            step(case, optimizer, phases)
            seconds[name].append(phases.seconds | {"step": time.perf_counter() - started})
    report(case, seconds, losses, memory)


def report(
    case: Case, seconds: dict[str, list[dict[str, float]]], losses: dict[str, float], memory: dict[str, float]
) -> None:
    """Print phases, utterances per second, memory and both losses as a Markdown table.

    Args:
        case: The inputs.
        seconds: Times of the phases by repeat, for each implementation.
        losses: Loss of each implementation.
        memory: Peak bytes of each implementation.
    """
    clips, audio = len(case.batch.ids), case.batch.seconds
    print(f"{clips} clips, {audio:.0f} s of audio, k = {case.top_k}, token cap {case.cap}, {case.student.device}\n")
    print("| phase | reference | arkasr | reference / arkasr |\n| --- | ---: | ---: | ---: |")
    for phase in (*PHASES, "step"):
        dense, sparse = (
            statistics.median(row.get(phase, 0.0) for row in seconds[name]) for name in ("reference", "arkasr")
        )
        print(f"| {phase} (s) | {dense:.3f} | {sparse:.3f} | {dense / max(sparse, 1e-9):.1f} |")
    pairs = zip(seconds["reference"], seconds["arkasr"], strict=True)
    ratio = statistics.median(a["step"] / b["step"] for a, b in pairs)
    rate = {name: clips / statistics.median(row["step"] for row in rows) for name, rows in seconds.items()}
    rates = f"{rate['reference']:.1f} | {rate['arkasr']:.1f}"
    print(f"| utterances/s | {rates} | {1 / ratio:.3f} ({ratio:.1f} times as many) |")
    dense, sparse = memory["reference"] / 2**20, memory["arkasr"] / 2**20
    print(f"| peak memory (MiB) | {dense:.0f} | {sparse:.0f} | {dense / max(sparse, 1):.1f} |")
    print(f"| loss | {losses['reference']:.6f} | {losses['arkasr']:.6f} | |")


def fresh_case(args: argparse.Namespace, device: str) -> Case:
    """Make models with random weights over one vocabulary, and clips of noise.

    Args:
        args: Command-line options.
        device: Where the models are.
    """
    tokens = fresh.tokenizer(args.vocab)
    student = fresh.student(args.fresh, tokens, device, args.dtype)
    with TemporaryDirectory() as folder:  # the teacher plugin loads its model from a folder
        fresh.teacher(args.fresh, tokens, device, args.dtype).save(Path(folder))
        teacher = registry.create("teacher", "qwen3_asr", {"path": folder, "dtype": args.dtype}, device=device)
    clips = fresh.clips(args.clips, args.seconds)
    batch = Batch([f"clip-{i}" for i in range(len(clips))], clips, [""] * len(clips), ["English"] * len(clips))
    mapper = registry.create("token_mapper", "identity", {}, student=student, teacher=teacher)
    return Case(student, teacher, mapper, registry.create("loss", "union_topk_kl", {}), batch, args.top_k, args.cap)


def trained_case(args: argparse.Namespace, device: str) -> Case:
    """Load the Base model, the teacher and the clips of a demo run.

    Args:
        args: Command-line options.
        device: Where the models are.
    """
    config = read_config(Path(args.expdir) / "base_opd" / "config.yaml")
    student = load_speech_lm(str(Path(args.expdir) / "base" / "final"), device=device)
    trained = Path(args.expdir) / "teacher" / "final"  # the path in the configuration may be relative to the recipe
    options = config.teacher.options | ({"path": str(trained)} if trained.is_dir() else {})
    teacher = registry.create("teacher", config.teacher.name, options, device=device)
    models = {"student": student, "teacher": teacher}
    mapper = registry.create("token_mapper", config.mapper.name, config.mapper.options, **models)
    loss = registry.create("loss", config.loss.name, config.loss.options)
    batch = load_batch(list(read_cuts(str(Path(args.datadir) / "base.jsonl.gz")))[: args.clips])
    return Case(student, teacher, mapper, loss, batch, config.distill.top_k, args.cap)


def main(argv: Sequence[str] | None = None) -> None:
    """Make or load the models and measure.

    Args:
        argv: Command-line options. Default: those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = parser.add_mutually_exclusive_group(required=True)
    models.add_argument("--fresh", choices=list(fresh.STUDENTS), help="use random weights of these sizes")
    models.add_argument("--expdir", help="use a demo run: folder with base/final and base_opd/config.yaml")
    parser.add_argument("--datadir", help="data directory of the demo run, required with --expdir")
    sizes = parser.add_argument_group("with --fresh")
    sizes.add_argument("--vocab", type=int, default=151936, help="vocabulary size (default: %(default)s, as Qwen2.5)")
    sizes.add_argument("--seconds", type=float, default=10.0, help="length of each clip (default: %(default)s)")
    sizes.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the weights")
    sizes.add_argument("--top_k", type=int, default=32, help="tokens of each top-k set (default: %(default)s)")
    published = "(default: %(default)s, as in the published launcher)"
    parser.add_argument("--clips", type=int, default=40, help=f"clips per batch {published}")
    parser.add_argument("--cap", type=int, default=64, help=f"token cap of each rollout {published}")
    parser.add_argument("--repeats", type=int, default=3, help="timed repeats (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.expdir and not args.datadir:
        parser.error("--expdir requires --datadir, the data directory of the demo run")
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    measure(fresh_case(args, device) if args.fresh else trained_case(args, device), args.repeats)


if __name__ == "__main__":
    main()
