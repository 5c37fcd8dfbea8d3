"""Print measured and predicted peaks of one distillation step on the CPU, as JSON in bytes. Run it as a script.

Set MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ before: glibc then returns freed memory at once.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import fresh
from measured import peak_bytes

from arkasr.config.schema import DistillConfig, ModelConfig, RolloutConfig
from arkasr.data.batches import Batch
from arkasr.distill.step import Opd, ScoredRollout
from arkasr.planning import memory
from arkasr.planning.layout import BatchShape, ShardingLayout
from arkasr.planning.model_sizes import count_parameters
from arkasr.plugins import registry
from arkasr.utils.timing import Phases

CLIPS, SECONDS, TOKENS, TOP_K = 12, 5.0, 64, 16
SIZE, VOCAB = "mini", 600


def main() -> None:
    """Measure the second step, in which the optimizer's state exists."""
    torch.set_num_threads(1)
    tokens = fresh.tokenizer(VOCAB)
    student = fresh.student(SIZE, tokens, "cpu", "float32").train()
    with tempfile.TemporaryDirectory() as folder:
        fresh.teacher(SIZE, tokens, "cpu", "float32").save(Path(folder))
        teacher = registry.create("teacher", "qwen3_asr", {"path": folder, "dtype": "float32"}, device="cpu")
    student.blocked[student.stop_ids] = True  # every transcript reaches its cap
    mapper = registry.create("token_mapper", "identity", {}, student=student, teacher=teacher)
    rollout, distill = RolloutConfig(max_new_tokens=TOKENS, tokens_per_second=0), DistillConfig(TOP_K, diagnose_every=0)
    opd = Opd(teacher, mapper, registry.create("loss", "union_topk_kl", {}), rollout, distill)
    names = [f"clip-{i}" for i in range(CLIPS)]
    batch = Batch(names, fresh.clips(CLIPS, SECONDS), [""] * CLIPS, ["English"] * CLIPS)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
    kept: list[ScoredRollout] = []

    def collect() -> None:
        kept.append(opd.collect(student, batch, Phases("cpu")))

    def step() -> None:
        total, count = opd.rescore(student, opd.collect(student, batch, Phases("cpu")))
        (total / count).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    measured = {"collect": peak_bytes(collect, "cpu")}
    kept.clear()
    measured["step"] = peak_bytes(step, "cpu")
    config, counts = student.hf.config, count_parameters(student.hf)
    layout, shape = ShardingLayout(1, 1, 4, 4, 4, wrapped=False), BatchShape(CLIPS, SECONDS, CLIPS, TOKENS)
    items = memory.student_items(config, counts, counts.total, shape, layout, ModelConfig())
    items |= memory.head_items(config.text_config, shape, layout, False, distill)
    items["rollout activations"] = memory.forward_activations(config, shape, 4)
    items |= memory.decoding_items(config, counts, [(shape, TOP_K)], layout)
    items |= memory.teacher_items(teacher.lm.hf.config, count_parameters(teacher.lm.hf), shape, layout)
    peaks = memory.phase_peaks(items, accumulate=False)
    held = items["weights"] + items["adamw"] + items["teacher weights"]
    predicted = {"collect": max(peaks["rollout"], peaks["teacher"]) - held, "step": max(peaks.values()) - held}
    print(json.dumps({"measured": measured, "predicted": predicted}))


if __name__ == "__main__":
    main()
