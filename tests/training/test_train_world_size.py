"""The same 11 global batches give the same losses and weights for any split over processes.

One launch of four processes runs every case, and the tests check the results.

Each case adds the same float32 numbers in another order, so gradients differ in their last bits (about 1e-7 of a loss).
11 steps of plain SGD pass these differences on to the weights unchanged (about 1e-7). The tests allow ten times more.
AdamW divides each gradient by its own size. A weight whose true gradient is 0, such as the bias of the keys, would then
move by the sign of rounding noise. Weights would differ a hundred times as much, which would hide real errors.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from corpus_fixture import clips, make_trainer
from forked_ranks import Forked
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.optim.lr_scheduler import LambdaLR

from arkasr.model.generation import generate
from arkasr.model.sharding import gathered

STEPS, SIZE = 11, 4  # number of global batches and of clips in each. None is an unreadable clip, one at each place
BATCHES = [[(7 * step + 5 * i) % 12 if (step + 3 * i) % 11 else None for i in range(SIZE)] for step in range(STEPS)]
START = ["train.eval_every=0", "train.steps=1000", "model.path={trained}/base/final"]
RUNS = {
    "sft": ("base", START),
    "opd": ("base_opd", [*START, "teacher.options.path={trained}/teacher/final"]),
    "teacher text": (
        "base_opd",
        [*START, "teacher.options.path={trained}/teacher/final", "distill.mix={student: 0, teacher: 1}"],
    ),
}
TWO_RANKS = {"sft 2 ranks x 2": ("sft", []), "opd 2 ranks x 2": ("opd", [])}
SAVED = "sft 2 groups of 2"
ALL = ["fsdp.replicate=0", "fsdp.activation_checkpointing=blocks", "fsdp.reshard_after_forward=false"]
FOUR_RANKS = {
    "sft 4 ranks": ("sft", []),
    "sft 2 groups of 2": ("sft", ["fsdp.replicate=2"]),
    "sft recomputed": ("sft", ["fsdp.activation_checkpointing=blocks"]),
    "sft kept gathered": ("sft", ["fsdp.reshard_after_forward=false"]),
    "opd 4 ranks": ("opd", []),
    "opd teacher sharded": ("opd", ["fsdp.teacher=shard"]),
    "opd all at once, 2 nodes": ("opd", [*ALL, "fsdp.teacher=shard"]),
    "teacher text, teacher sharded": ("teacher text", ["fsdp.teacher=shard"]),
}
MIXED = ["fsdp.teacher=shard", "distill.mix={student: 1, teacher: 1}"]  # each rank draws the source of the transcript
BFLOAT16 = ["fsdp.teacher=shard", "fsdp.replicate=2", "fsdp.compute_dtype=bfloat16"]
SMALL = 2.0**-10  # 1 + SMALL rounds to 1 in bfloat16
pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo"),
]


def trainer_of(case: str, overrides: list[str], conf: Path, trained: Path, datadir: Path, folder: Path):
    run, common = RUNS[case]
    words = [word.format(trained=trained) if "{trained}" in word else word for word in [*common, *overrides]]
    trainer = make_trainer(conf, run, folder, datadir, *words)
    trainer.optimizer = torch.optim.SGD(trainer.student.parameters(), lr=0.05)
    trainer.schedule = LambdaLR(trainer.optimizer, lambda step: 1.0)
    return trainer


def take_all_steps(trainer, batches) -> dict:
    """Take one step per global batch. Return losses, gradient norms, counts and the weights."""
    rows = [trainer.take_step(batches) for _ in range(STEPS)]
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    kept = [{name: row[name] for name in ("loss", "gradient_norm", "tokens", "clips")} for row in rows]
    return {"rows": kept, "weights": get_model_state_dict(trainer.student, options=options)}


def share(datadir: Path, rank: int, ranks: int):
    """Yield one rank's clips of the global batches, one clip per micro-batch."""
    for batch in BATCHES:
        for place in batch[rank::ranks]:
            yield clips(datadir / "train.jsonl.gz", [] if place is None else [place])


def join(folder: Path, name: str, rank: int, size: int, start=dist.init_process_group) -> None:
    """Make this process rank `rank` of a new process group, which every `Ranks` created later uses."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": "2"}
    start("gloo", init_method=f"file://{folder / name}", rank=rank, world_size=size)
    dist.init_process_group = lambda *arguments, **options: None


def facts(trainer, batch) -> dict:
    """Return how the models are sharded, how often weights are gathered, and the dtype and value of a gradient."""
    student, opd, calls = trainer.student, trainer.objective.opd, []
    gather = dist.all_gather_into_tensor
    dist.all_gather_into_tensor = lambda *args, **options: calls.append(1) or gather(*args, **options)
    scale = [1.0, SMALL, 0.0, 0.0][dist.get_rank()]
    student(lambda lm: (lm.head.float() * scale).sum()).backward()
    trained, start = student.hf.lm_head.weight, len(calls)
    opd.teacher.score(batch.waveforms, batch.languages, [[3, 4]])
    scored = len(calls) - start
    with gathered(student):
        for _ in range(3):
            student(lambda lm: generate(lm, lm.embed_prompts(lm.encode_audio(batch.waveforms), ["English"]), [5]))
    dist.all_gather_into_tensor = gather
    teacher_parameters = list(opd.teacher.lm.parameters())
    return {
        "mesh": (trained.device_mesh.mesh_dim_names, tuple(trained.device_mesh.shape)),
        "masters": {p.dtype for p in student.parameters()},
        "compute": student(lambda lm: lm.head.dtype),
        "gradient": trained.grad.full_tensor(),
        "modules": [sum(isinstance(m, FSDPModule) for m in lm.modules()) for lm in (student, opd.teacher.lm)],
        "gathers": [len(calls) - start - scored, scored],
        "teacher weights": [
            sum(p.numel() for p in teacher_parameters),
            sum(p.to_local().numel() for p in teacher_parameters),
        ],
    }


def worker(conf: Path, trained: Path, datadir: Path, folder: Path) -> None:
    """Run every case: first those of two ranks, two at a time, then those of four ranks."""
    rank = int(os.environ["RANK"])
    name, (case, overrides) = list(TWO_RANKS.items())[rank // 2]
    join(folder, f"world-{rank // 2}", rank % 2, 2)
    trainer = trainer_of(case, ["train.accumulate=2", *overrides], conf, trained, datadir, folder / name)
    results = {name: take_all_steps(trainer, share(datadir, rank % 2, 2))}
    dist.destroy_process_group()
    join(folder, "world", rank, 4)
    for name, (case, overrides) in FOUR_RANKS.items():
        trainer = trainer_of(case, overrides, conf, trained, datadir, folder / name)
        results[name] = take_all_steps(trainer, share(datadir, rank, 4))
        if name == SAVED:
            trainer.save()
            trainer.checkpoints.wait()
    trainer, stream = trainer_of("opd", MIXED, conf, trained, datadir, folder / "mixed"), share(datadir, rank, 4)
    results["mixed"] = [trainer.take_step(stream)["loss"] for _ in range(6)]
    trainer = trainer_of("opd", BFLOAT16, conf, trained, datadir, folder / "bfloat16")
    results["facts"] = facts(trainer, clips(datadir / "train.jsonl.gz", [rank]))
    torch.save(results, folder / f"results-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(conf, trained, datadir, tmp_path_factory):
    """Run the worker on four processes and return the result of each case by name."""
    folder = tmp_path_factory.mktemp("world-size")
    Forked(4, partial(worker, conf, trained, datadir, folder), folder / "printed").succeed()
    parts = [torch.load(folder / f"results-{rank}.pt", weights_only=False) for rank in (2, 0)]
    return parts[0] | parts[1] | {"folder": folder}


@pytest.fixture(scope="module")
def alone(conf, trained, datadir, tmp_path_factory):
    """Return a function that runs one case in this process, with four micro-batches of one clip per step."""
    done: dict[str, dict] = {}

    def run(case: str) -> dict:
        if case not in done:
            folder = tmp_path_factory.mktemp("alone")
            trainer = trainer_of(case, [f"train.accumulate={SIZE}"], conf, trained, datadir, folder)
            done[case] = take_all_steps(trainer, share(datadir, 0, 1))
        return done[case]

    return run


def differences(result: dict, reference: dict) -> tuple[float, float]:
    """Return the largest relative difference of a loss or gradient norm, and the largest difference of a weight.

    The norms are those before clipping. Clipping would hide a gradient that is too large by a constant factor.
    """
    rows, reference_rows = result["rows"], reference["rows"]
    assert result["weights"].keys() == reference["weights"].keys() and len(rows) == len(reference_rows) == STEPS
    for name in ("tokens", "clips"):
        assert [row[name] for row in rows] == [row[name] for row in reference_rows]
    pairs = [(a[name], b[name]) for a, b in zip(rows, reference_rows) for name in ("loss", "gradient_norm")]
    weights = [
        float((result["weights"][n] - w).abs().max()) for n, w in reference["weights"].items() if w.is_floating_point()
    ]
    return max(abs(a - b) / abs(b) for a, b in pairs), max(weights)


@pytest.mark.parametrize("name", [*TWO_RANKS, *FOUR_RANKS])
def test_losses_and_weights_do_not_depend_on_number_of_ranks(name, results, alone, trained):
    case, _ = (TWO_RANKS | FOUR_RANKS)[name]
    reference = alone(case)
    loss, weight = differences(results[name], reference)
    print(f"{name}: largest relative difference of losses and norms {loss:.1e}, of weights {weight:.1e} (absolute)")
    assert loss < 2e-5 and weight < 2e-6, (loss, weight)
    start = load_file(trained / "base" / "final" / "model.safetensors")
    moved = max(float((reference["weights"][f"hf.{n}"] - w).abs().max()) for n, w in start.items())
    assert moved > 1e-2  # 11 steps move weights thousands of times further than the tolerance


@pytest.mark.parametrize("case", ["sft", "opd"])
def test_activation_checkpointing_does_not_change_results_of_one_process(case, alone, conf, trained, datadir, tmp_path):
    overrides = [f"train.accumulate={SIZE}", "fsdp.activation_checkpointing=blocks"]
    recomputed = take_all_steps(trainer_of(case, overrides, conf, trained, datadir, tmp_path), share(datadir, 0, 1))
    loss, weight = differences(recomputed, alone(case))
    assert loss < 2e-5 and weight < 2e-6, (loss, weight)


def test_gradients_and_master_weights_are_float32_with_bfloat16_compute(results):
    facts = results["facts"]
    assert facts["masters"] == {torch.float32} and facts["compute"] == torch.bfloat16
    assert facts["gradient"].dtype == torch.float32
    assert torch.equal(facts["gradient"], torch.full_like(facts["gradient"], (1 + SMALL) / 4))


def test_models_are_sharded_in_groups_and_gathered_once_per_rollout(results):
    facts = results["facts"]
    assert facts["mesh"] == (("replicate", "shard"), (2, 2))
    assert facts["modules"] == facts["gathers"] == [3, 3]  # one block of the encoder, one of the decoder, and the rest
    whole, here = facts["teacher weights"]
    assert 0.5 <= here / whole < 0.55


def test_one_process_resumes_checkpoint_of_groups_with_activation_checkpointing(results, conf, trained, datadir):
    case, _ = FOUR_RANKS[SAVED]
    overrides = ["fsdp.activation_checkpointing=blocks"]
    trainer = trainer_of(case, overrides, conf, trained, datadir, results["folder"] / SAVED)
    trainer.resume()
    found = get_model_state_dict(trainer.student)
    assert found.keys() == results[SAVED]["weights"].keys()
    assert all(torch.equal(found[name], weight) for name, weight in results[SAVED]["weights"].items())


def test_sharded_teacher_works_if_only_some_ranks_use_its_transcripts(results):
    assert len(results["mixed"]) == 6 and all(0 < loss < 100 for loss in results["mixed"])
