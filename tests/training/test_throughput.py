"""The operations of a step, from what it logs, are those that torch counts; and MFU is their share of the peak."""

from __future__ import annotations

import pytest
import torch
from corpus_fixture import CONF, make_trainer, metrics, write_corpus
from tiny import teacher
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from arkasr.config.schema import Config
from arkasr.training.throughput import Throughput, model_in, peak_tflops


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "data")


def trainer(corpus, tmp_path, run, *overrides):
    conf = tmp_path / "conf.yaml"
    conf.write_text(CONF)
    teacher(num_mel_bins=20).save(tmp_path / "teacher" / "final")
    return make_trainer(conf, run, tmp_path, corpus, "train.eval_every=0", *overrides)


OPD = ("model.path=", "train.ctc_weight=0", "train.accumulate=2", "distill.diagnose_every=0")


@pytest.mark.parametrize(("run", "overrides"), [("base", ("train.accumulate=2",)), ("base_opd", OPD)])
def test_a_step_reports_the_operations_that_it_did(corpus, tmp_path, run, overrides):
    """Within 15 %: clips of unequal lengths are padded, and work is counted without."""
    made, seen = trainer(corpus, tmp_path, run, *overrides), []
    batches, count = iter(made.batches), made.throughput.flops
    made.throughput.flops = lambda sums: seen.append(count(sums)) or seen[-1]
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, made.phases("step"):
        row = made.take_step(batches)
    assert seen[0] == pytest.approx(counter.get_total_flops(), rel=0.15)
    assert row["teraflops_per_second"] == pytest.approx(seen[0] / 1e12 / row["time/step"])
    assert "mfu" not in row  # a CPU's peak is not known


def test_mfu_is_the_share_of_the_peak_a_worker(corpus, tmp_path):
    made = trainer(corpus, tmp_path, "base", "train.peak_tflops=2")
    made.throughput.workers = 4
    sums = {"num_clips": 3.0, "seconds": 9.0, "count": 12.0, "time/step": 0.5}
    said = made.throughput(sums)
    assert said["teraflops_per_second"] == made.throughput.flops(sums) / 1e12 / 0.5 / 4
    assert said["mfu"] == said["teraflops_per_second"] / 2


def test_a_run_logs_it(corpus, tmp_path):
    made = trainer(corpus, tmp_path, "base", "train.peak_tflops=1", "train.steps=2")
    assert made.run()
    rows = metrics(tmp_path / "base")
    assert len(rows) == 2 and all(0 < row["mfu"] <= row["teraflops_per_second"] for row in rows)


@pytest.mark.parametrize(
    "sums",
    [
        {"num_clips": 0.0, "seconds": 0.0, "count": 0.0, "time/step": 1.0},
        {"num_clips": 2.0, "seconds": 4.0, "count": 0.0, "transcripts": 0.0, "rolled": 2.0, "time/step": 1.0},
    ],
)
def test_a_step_without_anything_to_score_did_nothing(corpus, tmp_path, sums):
    assert trainer(corpus, tmp_path, "base").throughput(sums) == {"teraflops_per_second": 0.0}


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989.0),
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("Quadro 4000", 0.0),
    ],
)
def test_the_peak_of_known_gpus(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    config, cuda = Config(), torch.device("cuda", 0)
    assert peak_tflops(config, cuda) == 0.0  # in float32 it is not known
    config.fsdp.compute_dtype = "bfloat16"
    assert peak_tflops(config, cuda) == peak and peak_tflops(config, torch.device("cpu")) == 0.0
    config.train.peak_tflops = 50.0
    assert peak_tflops(config, cuda) == 50.0


def test_a_teacher_elsewhere_is_not_counted():
    class Elsewhere:
        def __init__(self):
            self.address = "http://node7:8000"

    class Here:
        def __init__(self):
            self.lm = teacher()

    assert model_in(Elsewhere()) is None and model_in(Here()).config.model_type == "qwen3_asr"


def test_a_distillation_with_a_teacher_elsewhere_counts_the_student_only(corpus, tmp_path):
    made = trainer(corpus, tmp_path, "base_opd", *OPD)
    alone = Throughput(made.config, made.student, object.__new__(type("Elsewhere", (), {})), 1)
    sums = {"num_clips": 2.0, "seconds": 2.0, "transcripts": 2.0, "rolled": 2.0, "rollout_tokens": 12.0}
    sums |= {"teacher_tokens": 12.0, "count": 10.0}
    assert 0 < alone.flops(sums) < made.throughput.flops(sums)
