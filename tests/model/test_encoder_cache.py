"""Cached encoder states: equal to computed ones, each clip once, a limit, and runs that resume exactly."""

from __future__ import annotations

import pytest
import torch
from corpus_fixture import metrics
from safetensors.torch import load_file
from steps import SIZES, K, opd, trainable
from tiny import batch, student, teacher, waveform
from training_runs import cost_free, train_until

from arkasr.config.load import load_config
from arkasr.config.schema import Config, ModelConfig, TrainConfig
from arkasr.data.waveforms import Waveforms
from arkasr.errors import UserError
from arkasr.model import row_stores
from arkasr.model.build import freeze
from arkasr.model.encoder_cache import EncoderCache, encoder_digest
from arkasr.planning.flops import Workload, audio_encoder
from arkasr.planning.forecast import step_flops
from arkasr.training.objectives import SupervisedObjective
from arkasr.training.train import train
from arkasr.utils.timing import Phases

CACHED = ["model.freeze=[encoder]", "train.cache_encoder=1"]


def with_cache(lm, folder=None):
    """Freeze the encoder of a model, and return the model with a cache and a list of the clips that it encodes."""
    freeze(lm.requires_grad_(True), ["encoder"])
    lm.encoder_cache, compute, encoded = EncoderCache(1.0, folder), lm._computed, []
    lm._computed = lambda clips, masks: encoded.append(list(clips)) or compute(clips, masks)
    return lm, encoded


@pytest.mark.parametrize("make", [student, teacher])
def test_cached_states_equal_computed_ones(make):
    lm, encoded = with_cache(make(2))
    clips = [waveform(n, seed) for seed, n in enumerate((16000, 4000, 9000))]
    alone = [make(2)._computed(Waveforms([clip]), None) for clip in clips]
    together = make(2).encode_audio(clips)
    for order in ([0, 1], [2, 1, 0], [1, 1, 2]):  # the same values, whatever batch needed a clip first
        chosen = [clips[i].clone() for i in order]
        assert torch.equal(lm._encoded(Waveforms(chosen), None), torch.cat([alone[i] for i in order]))
        for rows, i in zip(lm.encode_audio(chosen), order, strict=True):
            torch.testing.assert_close(rows, together[i], rtol=1e-5, atol=1e-5)
    assert [len(part) for part in encoded] == [1, 1, 1]


def test_cache_tells_clips_with_other_samples_apart():
    lm, encoded = with_cache(student(2))
    clip = waveform(9000, 0)
    other = clip.clone()
    other[4321] += 1e-4
    rows = lm.encode_audio([clip, other, clip[:-160]])
    assert (
        len(encoded) == 3
        and not torch.equal(rows[0], rows[1])
        and len(rows[2]) == len(lm.encode_audio([clip[:-160]])[0])
    )


def test_training_step_with_cache_has_the_loss_and_gradients_of_one_without():
    found = []
    for cached in (False, True):
        lm = trainable().requires_grad_(True)
        freeze(lm, ["encoder"])
        lm.encoder_cache = EncoderCache(1.0) if cached else None
        for make in (lambda lm: SupervisedObjective(0.0)(lm, batch(SIZES), Phases()).total, lambda lm: opd_loss(lm)):
            lm.zero_grad()
            make(lm)
            total = make(lm)  # the second time, all clips are cached
            total.backward()
            found.append((total.detach(), {n: p.grad for n, p in lm.named_parameters() if p.grad is not None}))
    for plain, cached in zip(found[:2], found[2:]):
        torch.testing.assert_close(plain, cached, rtol=1e-3, atol=1e-5)
        assert not any(name.startswith("hf.model.audio_tower") for name in cached[1])


def opd_loss(lm) -> torch.Tensor:
    step = opd(lm, k=K)
    return step.rescore(lm, step.collect(lm, batch(SIZES), Phases()))[0]


def test_cache_stops_at_its_limit_and_reports_once(capsys):
    lm, encoded = with_cache(student(2))
    clips = [waveform(16000, seed) for seed in range(3)]
    first = lm.encode_audio(clips)
    lm.encoder_cache = EncoderCache(2.5 * lm.encoder_cache.store.num_bytes / 3 / 2**30)
    encoded.clear()
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, lm.encode_audio(clips)))
    assert len(encoded) == 3 + 2 and len(lm.encoder_cache.store) == 2
    assert capsys.readouterr().out.count("full with the encoder states of 2 clips") == 1


def test_cache_is_dropped_when_the_encoder_is_trained():
    lm, _ = with_cache(student(2))
    lm.encode_audio([waveform(9000)])
    lm.hf.model.audio_tower.requires_grad_(True)
    rows = lm.encode_audio([waveform(9000)])[0]
    rows.sum().backward()
    assert len(lm.encoder_cache.store) == lm.encoder_cache.store.num_bytes == 0
    assert lm.hf.model.audio_tower.conv1.weight.grad is not None


def test_folder_gives_another_process_the_same_rows(tmp_path, capsys):
    clips = [waveform(16000, seed) for seed in range(3)]
    first, encoded = with_cache(student(2), folder=tmp_path / "states")
    rows = first.encode_audio(clips)
    assert len(encoded) == 3
    second, encoded = with_cache(student(2), folder=tmp_path / "states")
    assert second.encoder_cache.store.num_bytes == first.encoder_cache.store.num_bytes > 0
    assert all(torch.equal(a, b) for a, b in zip(rows, second.encode_audio(clips))) and not encoded
    damaged = sorted((tmp_path / "states").iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert all(torch.equal(a, b) for a, b in zip(rows, second.encode_audio(clips))) and len(encoded) == 1
    assert f"{damaged}: damaged" in capsys.readouterr().out
    assert all(torch.equal(a, b) for a, b in zip(rows, second.encode_audio(clips))) and len(encoded) == 1


def test_folder_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"train.cache_folder` .*file/states: cannot be used \("):
        EncoderCache(1.0, tmp_path / "file" / "states")
    lm, _ = with_cache(student(2), folder=tmp_path / "states")
    monkeypatch.setattr(row_stores, "save_file", lambda tensors, path: path.write_bytes(b"part") and 1 / 0)
    monkeypatch.setattr(row_stores.safetensors, "SafetensorError", ZeroDivisionError)
    with pytest.raises(UserError, match="train.cache_folder"):
        lm.encode_audio([waveform(9000)])
    assert not list((tmp_path / "states").iterdir())


def test_encoder_digest_depends_on_weights_configuration_and_settings():
    encoders = [student(seed).hf.model.audio_tower for seed in (1, 1, 2)]
    one, same, other = (encoder_digest(encoder, "float32") for encoder in encoders)
    assert one == same and len({one, other, encoder_digest(encoders[0], "bfloat16")}) == 3
    encoders[0].config.rope_parameters = {"rope_type": "default", "rope_theta": 123.0}
    assert encoder_digest(encoders[0], "float32") != one


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.cache_encoder=1"], "train.cache_encoder must be 0 with a trained encoder; name it in `model.freeze`"),
        ([*CACHED, "augment.time_masks=1"], "train.cache_encoder must be 0 with masks"),
        (["train.cache_folder=x"], "train.cache_folder must be empty without train.cache_encoder, got x"),
        (["train.cache_encoder=-1"], "train.cache_encoder must be at least 0, got -1"),
    ],
)
def test_cache_that_cannot_be_used_is_an_error(conf, words, message):
    with pytest.raises(UserError, match=message):
        load_config(str(conf), "base", "exp", "data", words)


def test_cache_needs_an_encoder_that_masks_padding(conf, datadir, tmp_path):
    with pytest.raises(UserError, match="`train.cache_encoder` must be 0 .*the encoder attends to padding"):
        train(str(conf), "base", str(tmp_path), str(datadir), [*CACHED, "model.mask_padding=false"])


@pytest.mark.slow
def test_killed_run_with_cache_and_speeds_resumes_with_identical_steps(conf, datadir, tmp_path, monkeypatch):
    folder = f"train.cache_folder={tmp_path}/states"
    changes = [
        *CACHED,
        folder,
        "augment.speeds=[0.9,1.1]",
        "train.steps=16",
        "train.save_every=8",
        "train.eval_every=8",
    ]
    train(str(conf), "base", str(tmp_path / "whole"), str(datadir), changes)
    train_until(monkeypatch, 11, str(conf), "base", str(tmp_path / "cut"), str(datadir), changes)
    torch.manual_seed(99)
    train(str(conf), "base", str(tmp_path / "cut"), str(datadir), changes)
    one, other = (tmp_path / name / "base" for name in ("whole", "cut"))
    weights, others = (load_file(folder / "final" / "model.safetensors") for folder in (one, other))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert cost_free(metrics(one)) == cost_free(metrics(other))


@pytest.mark.slow
@pytest.mark.parametrize("run", ["base", "base_opd"])
def test_killed_run_with_masks_resumes_with_identical_steps(conf, datadir, trained, tmp_path, monkeypatch, run):
    changes = [
        "augment.time_masks=2",
        "augment.mel_masks=2",
        "train.steps=8",
        "train.save_every=4",
        "train.eval_every=0",
    ]
    if run == "base_opd":
        changes += [f"model.path={trained}/base/final", f"teacher.options.path={trained}/teacher/final"]
    train(str(conf), run, str(tmp_path / "whole"), str(datadir), changes)
    train_until(monkeypatch, 7, str(conf), run, str(tmp_path / "cut"), str(datadir), changes)
    torch.manual_seed(99)
    train(str(conf), run, str(tmp_path / "cut"), str(datadir), changes)
    one, other = (tmp_path / name / run for name in ("whole", "cut"))
    weights, others = (load_file(folder / "final" / "model.safetensors") for folder in (one, other))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert cost_free(metrics(one)) == cost_free(metrics(other))


def test_cached_encoder_is_not_counted_as_work_of_a_step():
    load, config = Workload(3, 15.0, 3, 60), student().hf.config
    model = ModelConfig(freeze=["encoder"])
    plain = step_flops(Config(model=model), config, [], load, False, {})
    cached = step_flops(Config(model=model, train=TrainConfig(cache_encoder=1.0)), config, [], load, False, {})
    encoder = audio_encoder(config, 5.0)
    assert plain["student"] - cached["student"] == pytest.approx(3 * (encoder["features"] + encoder["encoder"]))
    assert plain["backward"] == cached["backward"] and cached["student"] > 0
