"""Throughput: the operations of one step are those that torch counts, and MFU is their share of the peak."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from corpus_fixture import CONF, make_trainer, metrics, write_corpus
from tiny import teacher
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel

from arkasr.config.schema import Config
from arkasr.training.throughput import Throughput, local_model, peak_tflops


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "data")


def trainer_of(corpus, tmp_path, run, *overrides):
    conf = tmp_path / "conf.yaml"
    conf.write_text(CONF)
    teacher(num_mel_bins=20).save(tmp_path / "teacher" / "final")
    return make_trainer(conf, run, tmp_path, corpus, "train.eval_every=0", *overrides)


OPD = ("model.path=", "train.ctc_weight=0", "train.accumulate=2", "distill.diagnose_every=0")


@pytest.mark.parametrize(("run", "overrides"), [("base", ("train.accumulate=2",)), ("base_opd", OPD)])
def test_throughput_counts_operations_of_a_step(corpus, tmp_path, run, overrides):
    """The tolerance is 15 %, because clips of unequal lengths are padded and padding is not counted."""
    trainer, counts = trainer_of(corpus, tmp_path, run, *overrides), []
    batches, count = iter(trainer.batches), trainer.throughput.flops
    trainer.throughput.flops = lambda sums: counts.append(count(sums)) or counts[-1]
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, trainer.phases("step"):
        row = trainer.take_step(batches)
    assert counts[0] == pytest.approx(counter.get_total_flops(), rel=0.15)
    assert row["teraflops_per_second"] == pytest.approx(counts[0] / 1e12 / row["time/step"])
    assert "mfu" not in row  # the peak of a CPU is not known


def test_mfu_is_share_of_peak_per_worker(corpus, tmp_path):
    throughput = trainer_of(corpus, tmp_path, "base", "train.peak_tflops=2").throughput
    throughput.workers = 4
    sums = {"num_clips": 3.0, "seconds": 9.0, "count": 12.0, "time/step": 0.5}
    row = throughput(sums)
    assert row["teraflops_per_second"] == throughput.flops(sums) / 1e12 / 0.5 / 4
    assert row["mfu"] == row["teraflops_per_second"] / 2


def test_run_logs_mfu(corpus, tmp_path):
    trainer = trainer_of(corpus, tmp_path, "base", "train.peak_tflops=1", "train.steps=2")
    assert trainer.run()
    rows = metrics(tmp_path / "base")
    assert len(rows) == 2 and all(0 < row["mfu"] <= row["teraflops_per_second"] for row in rows)


@pytest.mark.parametrize(
    "sums",
    [
        {"num_clips": 0.0, "seconds": 0.0, "count": 0.0, "time/step": 1.0},
        {"num_clips": 2.0, "seconds": 4.0, "count": 0.0, "transcripts": 0.0, "rolled": 2.0, "time/step": 1.0},
    ],
)
def test_step_without_scored_clips_has_zero_throughput(corpus, tmp_path, sums):
    assert trainer_of(corpus, tmp_path, "base").throughput(sums) == {"teraflops_per_second": 0.0}


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
def test_peak_tflops_of_known_gpus(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    config, cuda = Config(), torch.device("cuda", 0)
    assert peak_tflops(config, cuda) == 0.0  # unknown in float32
    config.fsdp.compute_dtype = "bfloat16"
    assert peak_tflops(config, cuda) == peak and peak_tflops(config, torch.device("cpu")) == 0.0
    config.train.peak_tflops = 50.0
    assert peak_tflops(config, cuda) == 50.0


def test_local_model_is_none_for_remote_teacher():
    class Remote:
        def __init__(self):
            self.address = "http://node7:8000"

    class Local:
        def __init__(self):
            self.lm = teacher()

    assert local_model(Remote()) is None and local_model(Local()).config.model_type == "qwen3_asr"


def test_throughput_with_remote_teacher_counts_the_student_only(corpus, tmp_path):
    trainer = trainer_of(corpus, tmp_path, "base_opd", *OPD)
    student_only = Throughput(trainer.config, trainer.student, object.__new__(type("Remote", (), {})), 1)
    sums = {"num_clips": 2.0, "seconds": 2.0, "transcripts": 2.0, "rolled": 2.0, "rollout_tokens": 12.0}
    sums |= {"teacher_tokens": 12.0, "count": 10.0}
    assert 0 < student_only.flops(sums) < trainer.throughput.flops(sums)


def test_unknown_model_of_a_teacher_gives_no_throughput(corpus, tmp_path, capsys):
    """A plugin may hold any model. Its operations cannot be counted, so no figure is logged."""
    trainer = trainer_of(corpus, tmp_path, "base_opd", *OPD)
    held = SimpleNamespace(model=BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)))
    throughput = Throughput(trainer.config, trainer.student, held, 1)
    assert throughput({"num_clips": 2.0, "seconds": 2.0, "count": 10.0, "time/step": 1.0}) == {}
    assert "a teacher of type 'bert' are unknown" in capsys.readouterr().out
