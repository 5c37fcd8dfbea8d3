"""One number: the same 20 global batches give the same losses and weights, however they are split over processes.

One launch of four processes does every case; the tests look at them. This file is its own worker.

Every case adds up the same float32 numbers in another order, so that gradients differ in their last bits: by parts in
10^7 of a loss, and 20 steps by plain SGD pass that on to the weights as it is (about 1e-7; ten times this is allowed).
AdamW sees the same gradients but divides each by its own size: a weight whose true gradient is 0, such as the bias of a
key, steps by the sign of rounding noise. Its weights differ a hundred times as much, which would hide real differences.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from corpus_fixture import clips, make_trainer
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.optim.lr_scheduler import LambdaLR

from arkasr.model.generation import generate
from arkasr.model.sharding import gathered

ROOT = Path(__file__).parents[2]
STEPS, SIZE = 20, 4  # global batches, and clips in each; None below: a clip that could not be read
BATCHES = [[(7 * step + 5 * i) % 12 if (step + 3 * i) % 11 else None for i in range(SIZE)] for step in range(STEPS)]
START = ["train.eval_every=0", "train.steps=1000", "model.path={trained}/base/final"]
RUNS = {
    "sft": ("base", START),
    "opd": ("base_opd", [*START, "teacher.options.path={trained}/teacher/final"]),
    "heard": (
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
    "heard teacher sharded": ("heard", ["fsdp.teacher=shard"]),
}
MIXED = ["fsdp.teacher=shard", "distill.mix={student: 1, teacher: 1}"]  # each rank draws who transcribes its clip
BFLOAT16 = ["fsdp.teacher=shard", "fsdp.replicate=2", "fsdp.compute_dtype=bfloat16"]
SMALL = 2.0**-10  # 1 + SMALL is 1 in bfloat16
pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")


def trainer_of(case: str, overrides: list[str], conf: Path, trained: Path, datadir: Path, folder: Path):
    run, common = RUNS[case]
    words = [word.format(trained=trained) if "{trained}" in word else word for word in [*common, *overrides]]
    trainer = make_trainer(conf, run, folder, datadir, *words)
    trainer.optimizer = torch.optim.SGD(trainer.student.parameters(), lr=0.05)
    trainer.schedule = LambdaLR(trainer.optimizer, lambda step: 1.0)
    return trainer


def taken(trainer, batches) -> dict:
    """Take a step for each global batch; return losses, gradient norms, counts and the weights."""
    rows = [trainer.take_step(batches) for _ in range(STEPS)]
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    kept = [{name: row[name] for name in ("loss", "gradient_norm", "tokens", "clips")} for row in rows]
    return {"rows": kept, "weights": get_model_state_dict(trainer.student, options=options)}


def share(datadir: Path, rank: int, ranks: int):
    """Yield one rank's clips of the global batches, a clip a micro-batch."""
    for batch in BATCHES:
        for place in batch[rank::ranks]:
            yield clips(datadir / "train.jsonl.gz", [] if place is None else [place])


def join(folder: Path, name: str, rank: int, size: int, start=dist.init_process_group) -> None:
    """Make this process rank `rank` of a world of its own, which every `Ranks` made from now on finds."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": "2"}
    start("gloo", init_method=f"file://{folder / name}", rank=rank, world_size=size)
    dist.init_process_group = lambda *arguments, **options: None


def facts(trainer, batch) -> dict:
    """Say how a trainer's models lie on the ranks, what is gathered when, and what the reduction of gradients keeps."""
    student, opd, calls = trainer.student, trainer.objective.opd, []
    gather = dist.all_gather_into_tensor
    dist.all_gather_into_tensor = lambda *given, **options: calls.append(1) or gather(*given, **options)
    scale = [1.0, SMALL, 0.0, 0.0][dist.get_rank()]
    student(lambda lm: (lm.head.float() * scale).sum()).backward()
    trained, start = student.hf.lm_head.weight, len(calls)
    opd.teacher.score(batch.waveforms, batch.languages, [[3, 4]])
    scored = len(calls) - start
    with gathered(student):
        for _ in range(3):
            student(lambda lm: generate(lm, lm.embed_prompts(lm.encode_audio(batch.waveforms), ["English"]), [5]))
    dist.all_gather_into_tensor = gather
    theirs = list(opd.teacher.lm.parameters())
    return {
        "mesh": (trained.device_mesh.mesh_dim_names, tuple(trained.device_mesh.shape)),
        "masters": {p.dtype for p in student.parameters()},
        "compute": student(lambda lm: lm.head.dtype),
        "gradient": trained.grad.full_tensor(),
        "modules": [sum(isinstance(m, FSDPModule) for m in lm.modules()) for lm in (student, opd.teacher.lm)],
        "gathers": [len(calls) - start - scored, scored],
        "teacher's weights": [sum(p.numel() for p in theirs), sum(p.to_local().numel() for p in theirs)],
    }


def worker(conf: Path, trained: Path, datadir: Path, folder: Path) -> None:
    """Do every case on each rank: first those of two ranks, side by side, then those of four."""
    rank = int(os.environ["RANK"])
    name, (case, overrides) = list(TWO_RANKS.items())[rank // 2]
    join(folder, f"world-{rank // 2}", rank % 2, 2)
    trainer = trainer_of(case, ["train.accumulate=2", *overrides], conf, trained, datadir, folder / name)
    made = {name: taken(trainer, share(datadir, rank % 2, 2))}
    dist.destroy_process_group()
    join(folder, "world", rank, 4)
    for name, (case, overrides) in FOUR_RANKS.items():
        trainer = trainer_of(case, overrides, conf, trained, datadir, folder / name)
        made[name] = taken(trainer, share(datadir, rank, 4))
        if name == SAVED:
            trainer.save()
            trainer.checkpoints.wait()
    trainer, stream = trainer_of("opd", MIXED, conf, trained, datadir, folder / "mixed"), share(datadir, rank, 4)
    made["mixed"] = [trainer.take_step(stream)["loss"] for _ in range(6)]
    trainer = trainer_of("opd", BFLOAT16, conf, trained, datadir, folder / "bfloat16")
    made["facts"] = facts(trainer, clips(datadir / "train.jsonl.gz", [rank]))
    torch.save(made, folder / f"made-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def made(conf, trained, datadir, tmp_path_factory):
    """Run the worker on four processes; return what each case measured, by its name."""
    folder = tmp_path_factory.mktemp("one-number")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests/helpers'}",
        "CUDA_VISIBLE_DEVICES": "",
    }
    words = [*launch, __file__, str(conf), str(trained), str(datadir), str(folder)]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=600, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = [torch.load(folder / f"made-{rank}.pt", weights_only=False) for rank in (2, 0)]
    return parts[0] | parts[1] | {"folder": folder}


@pytest.fixture(scope="module")
def alone(conf, trained, datadir, tmp_path_factory):
    """Return a function that runs a case in this process: four micro-batches of a clip a step."""
    done: dict[str, dict] = {}

    def run(case: str) -> dict:
        if case not in done:
            folder = tmp_path_factory.mktemp("alone")
            trainer = trainer_of(case, [f"train.accumulate={SIZE}"], conf, trained, datadir, folder)
            done[case] = taken(trainer, share(datadir, 0, 1))
        return done[case]

    return run


def differences(ours: dict, theirs: dict) -> tuple[float, float]:
    """Return the largest relative difference of a loss or gradient norm, and the largest difference of a weight.

    The norms are those before clipping, which would hide a gradient that is a whole factor too large.
    """
    assert ours["weights"].keys() == theirs["weights"].keys() and len(ours["rows"]) == len(theirs["rows"]) == STEPS
    for name in ("tokens", "clips"):
        assert [row[name] for row in ours["rows"]] == [row[name] for row in theirs["rows"]]
    pairs = [(a[name], b[name]) for a, b in zip(ours["rows"], theirs["rows"]) for name in ("loss", "gradient_norm")]
    weights = [
        float((ours["weights"][n] - w).abs().max()) for n, w in theirs["weights"].items() if w.is_floating_point()
    ]
    return max(abs(a - b) / abs(b) for a, b in pairs), max(weights)


@pytest.mark.parametrize("name", [*TWO_RANKS, *FOUR_RANKS])
def test_however_ranks_share_the_work_the_numbers_are_the_same(name, made, alone, trained):
    case, _ = (TWO_RANKS | FOUR_RANKS)[name]
    reference = alone(case)
    loss, weight = differences(made[name], reference)
    print(f"{name}: losses and norms differ by {loss:.1e} of their size, weights by {weight:.1e} at most")
    assert loss < 2e-5 and weight < 2e-6, (loss, weight)
    start = load_file(trained / "base" / "final" / "model.safetensors")
    moved = max(float((reference["weights"][f"hf.{n}"] - w).abs().max()) for n, w in start.items())
    assert moved > 1e-2  # 20 steps went a thousand times as far as they may differ


@pytest.mark.parametrize("case", ["sft", "opd"])
def test_one_process_may_recompute_its_blocks(case, alone, conf, trained, datadir, tmp_path):
    overrides = [f"train.accumulate={SIZE}", "fsdp.activation_checkpointing=blocks"]
    again = taken(trainer_of(case, overrides, conf, trained, datadir, tmp_path), share(datadir, 0, 1))
    loss, weight = differences(again, alone(case))
    assert loss < 2e-5 and weight < 2e-6, (loss, weight)


def test_gradients_are_reduced_in_float32_into_float32_weights_while_bfloat16_computes(made):
    facts = made["facts"]
    assert facts["masters"] == {torch.float32} and facts["compute"] == torch.bfloat16
    assert facts["gradient"].dtype == torch.float32
    assert torch.equal(facts["gradient"], torch.full_like(facts["gradient"], (1 + SMALL) / 4))


def test_models_are_sharded_in_groups_and_gathered_once_a_rollout(made):
    facts = made["facts"]
    assert facts["mesh"] == (("replicate", "shard"), (2, 2))
    assert facts["modules"] == facts["gathers"] == [3, 3]  # a block of the encoder, one of the decoder, and the rest
    whole, here = facts["teacher's weights"]
    assert 0.5 <= here / whole < 0.55


def test_what_groups_of_ranks_save_one_process_resumes_with_its_blocks_recomputed(made, conf, trained, datadir):
    case, _ = FOUR_RANKS[SAVED]
    overrides = ["fsdp.activation_checkpointing=blocks"]
    trainer = trainer_of(case, overrides, conf, trained, datadir, made["folder"] / SAVED)
    trainer.resume()
    found = get_model_state_dict(trainer.student)
    assert found.keys() == made[SAVED]["weights"].keys()
    assert all(torch.equal(found[name], weight) for name, weight in made[SAVED]["weights"].items())


def test_ranks_that_ask_a_sharded_teacher_and_ranks_that_do_not_go_on_together(made):
    assert len(made["mixed"]) == 6 and all(0 < loss < 100 for loss in made["mixed"])


if __name__ == "__main__":
    worker(*map(Path, sys.argv[1:]))
