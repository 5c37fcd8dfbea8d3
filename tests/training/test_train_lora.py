"""A run with LoRA adapters: files, exact resume, equal transcripts in all forms, and models that transformers loads."""

from __future__ import annotations

import json
import shutil

import peft
import pytest
import torch
from corpus_fixture import clips, make_trainer, metrics
from safetensors.torch import load_file
from training_runs import cost_free, train_until
from transformers import AutoModelForCausalLM

import arkasr
from arkasr.config.schema import DecodeConfig
from arkasr.errors import UserError
from arkasr.evaluation.hypotheses import transcribe
from arkasr.model.checkpoint_files import load_adapted, load_checkpoint
from arkasr.model.checkpoint_reader import saved_shapes
from arkasr.model.loading import load_speech_lm
from arkasr.training.train import train

pytestmark = pytest.mark.slow
LORA = ["model.lora={rank: 3, alpha: 12, dropout: 0.1, encoder: true}", "optim.lr=0.1", "train.steps=6"]
LORA += ["train.save_every=2", "train.keep=3", "train.eval_every=3"]


def words(trained, *more):
    paths = [f"model.path={trained}/base/final", f"teacher.options.path={trained}/teacher/final"]
    return [*paths, *LORA, *more]


@pytest.fixture(scope="module")
def run(conf, trained, datadir, tmp_path_factory):
    """An experiment with a distilled run that has adapters."""
    expdir = tmp_path_factory.mktemp("lora")
    train(str(conf), "base_opd", str(expdir), str(datadir), words(trained))
    return expdir / "base_opd"


def texts(lm, datadir):
    return transcribe(lm, clips(datadir / "train.jsonl.gz"), DecodeConfig(max_new_tokens=12))


def same_weights(one, other):
    weights = [lm.state_dict() if isinstance(lm, torch.nn.Module) else lm for lm in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    return all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_adapters_and_projector_are_trained_and_final_is_the_merged_model(run, trained, datadir):
    start = load_file(trained / "base" / "final" / "model.safetensors")
    final = load_file(run / "final" / "model.safetensors")
    changed = {name for name in start if not torch.equal(start[name], final[name])}
    assert start.keys() == final.keys() and {
        name.partition(".layers.")[0] for name in changed if ".layers." in name
    } == {
        "model.audio_tower",
        "model.language_model",
    }
    others = {name for name in changed if ".layers." not in name}
    assert others and all("multi_modal_projector" in name for name in others)
    assert not any("norm" in name or ("bias" in name and "projector" not in name) for name in changed)
    before, after = (load_speech_lm(str(path)) for path in (trained / "base" / "final", run / "final"))
    assert texts(before, datadir) != texts(after, datadir)


def test_checkpoints_hold_trained_weights_only_and_load_with_their_base(run):
    checkpoint = run / "checkpoints" / "step-00000006"
    final = load_speech_lm(str(run / "final"))
    assert same_weights(load_checkpoint(checkpoint).hf, final.hf)
    lm = load_adapted(checkpoint)
    trained = {f"model.hf.{name}" for name, weight in lm.hf.named_parameters() if weight.requires_grad}
    saved = saved_shapes(checkpoint / "weights")
    assert {name for name in saved if name.startswith("model.")} == trained and any("lora_A" in n for n in trained)
    moments = {name for name in saved if name.startswith("optim.state.") and not name.endswith(".step")}
    assert len(moments) == 2 * len(trained)


def test_resumed_run_is_bitwise_equal_to_an_uninterrupted_one(run, conf, trained, datadir, tmp_path, monkeypatch):
    arguments = (str(conf), "base_opd", str(tmp_path), str(datadir), words(trained))
    train_until(monkeypatch, 4, *arguments)
    assert sorted(p.name for p in (tmp_path / "base_opd" / "checkpoints").iterdir()) == ["step-00000002"]
    train(*arguments)
    for file in ("final/model.safetensors", "final/adapter/adapter_model.safetensors"):
        assert same_weights(load_file(run / file), load_file(tmp_path / "base_opd" / file))
    assert cost_free(metrics(run)) == cost_free(metrics(tmp_path / "base_opd"))


def test_both_forms_load_in_transformers_and_give_the_transcripts_of_the_trained_model(run, conf, trained, datadir):
    trainer = make_trainer(conf, "base_opd", run.parent, datadir, *words(trained))
    trainer.resume()
    expected = texts(trainer.student.eval(), datadir)
    merged = load_speech_lm(str(run / "final"))
    assert texts(merged, datadir) == expected and len({row["hypothesis"] for row in expected}) > 1
    assert texts(arkasr.load_speech_lm(str(run / "final" / "adapter")), datadir) == expected
    for hf in (
        AutoModelForCausalLM.from_pretrained(run / "final"),
        peft.PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(trained / "base" / "final"), run / "final" / "adapter"
        ).merge_and_unload(),
    ):
        for name, weight in merged.hf.named_parameters():
            torch.testing.assert_close(hf.get_parameter(name), weight, rtol=1e-6, atol=1e-7)


def test_unmerged_adapter_in_peft_computes_the_logits_of_the_merged_model(run, trained):
    merged = load_speech_lm(str(run / "final")).hf
    base = AutoModelForCausalLM.from_pretrained(trained / "base" / "final")
    adapted = peft.PeftModel.from_pretrained(base, run / "final" / "adapter")
    generator = torch.Generator().manual_seed(0)
    lm = load_speech_lm(str(run / "final"))
    inputs = {
        "input_features": torch.randn(1, lm.num_mel, 80, generator=generator),
        "input_features_mask": torch.ones(1, 80, dtype=torch.long),
        "input_ids": torch.tensor([[5, *[lm.hf.config.audio_token_id] * lm.count_audio_tokens([80])[0], 6, 7]]),
    }
    with torch.no_grad():
        torch.testing.assert_close(adapted(**inputs).logits, merged(**inputs).logits, rtol=1e-4, atol=1e-4)


# Adapters that do not fit


def test_an_adapter_for_another_model_is_refused(run, trained, tmp_path):
    copy = shutil.copytree(run / "final" / "adapter", tmp_path / "adapter")
    settings = json.loads((copy / "adapter_config.json").read_text())
    for base, message in (
        (trained / "teacher" / "final", "an adapter for another model: .* has other weights than in its training"),
        (tmp_path / "nothing", "no config.json because there is no such folder"),
        ("", "adapter_config.json: base_model_name_or_path is empty"),
        (copy, "base_model_name_or_path is the adapter itself"),
    ):
        (copy / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": str(base)}))
        with pytest.raises(UserError, match=message):
            load_speech_lm(str(copy))
    (copy / "adapter_base.json").unlink()
    settings["base_model_name_or_path"] = str(trained / "teacher" / "final")
    (copy / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="for another model: base_model.model.* has shape .*, expected no such"):
        load_speech_lm(str(copy))
    (copy / "adapter_config.json").write_text(json.dumps(settings | {"peft_type": "IA3"}))
    with pytest.raises(UserError, match="adapter of type 'IA3'; only LORA is supported"):
        load_speech_lm(str(copy))


def test_a_checkpoint_whose_base_has_changed_is_refused(run, trained, tmp_path):
    copy = shutil.copytree(run / "checkpoints" / "step-00000006", tmp_path / "step-00000006")
    record = copy / "model" / "adapter_base.json"
    text = record.read_text()
    digest = json.loads(text)["weights"]
    record.write_text(text.replace(digest, "0" * len(digest)))
    complete = json.loads((copy / "COMPLETE").read_text())
    complete.pop("model/adapter_base.json")
    (copy / "COMPLETE").write_text(json.dumps(complete))
    with pytest.raises(UserError, match="an adapter for another model: .*/base/final has other weights"):
        load_checkpoint(copy)


def test_a_damaged_adapter_is_refused(run, tmp_path):
    copy = shutil.copytree(run / "final" / "adapter", tmp_path / "adapter")
    weights = bytearray((copy / "adapter_model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "adapter_model.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match="changed or damaged after the model was written"):
        load_speech_lm(str(copy))


def test_a_run_can_start_from_an_adapter(run, conf, trained, datadir, tmp_path):
    overrides = [f"model.path={run / 'final' / 'adapter'}", "train.steps=1", "train.eval_every=0"]
    train(str(conf), "base", str(tmp_path), str(datadir), [*overrides, "train.ctc_weight=0", "optim.lr=1e-9"])
    start = load_file(run / "final" / "model.safetensors")
    found = load_file(tmp_path / "base" / "final" / "model.safetensors")
    for name, value in start.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-7)


# Other settings


@pytest.mark.parametrize(
    "settings",
    [
        ["fsdp.compute_dtype=bfloat16", "fsdp.activation_checkpointing=blocks"],
        ["fsdp.compute_dtype=bfloat16", "model.dtype=bfloat16"],
        ["fsdp.activation_checkpointing=blocks", "model.freeze=[adapter]", "model.lora.encoder=false"],
    ],
)
def test_lora_trains_with_other_data_types_and_recomputation(conf, trained, datadir, tmp_path, settings):
    changes = [word for word in words(trained) if not word.startswith("model.lora")]
    lora = "model.lora={rank: 3, alpha: 12, encoder: " + str("model.freeze=[adapter]" not in settings).lower() + "}"
    settings = [word for word in settings if not word.startswith("model.lora")]
    train(str(conf), "base_opd", str(tmp_path), str(datadir), [*changes, lora, *settings])
    final = load_file(tmp_path / "base_opd" / "final" / "model.safetensors")
    wanted = torch.bfloat16 if "model.dtype=bfloat16" in settings else torch.float32
    assert {value.dtype for value in final.values()} == {wanted}
    start = load_file(trained / "base" / "final" / "model.safetensors")
    changed = {name for name, value in start.items() if not torch.equal(value.to(wanted), final[name])}
    assert any("language_model" in name for name in changed)
    assert any("multi_modal_projector" in name for name in changed) == ("model.freeze=[adapter]" not in settings)


def test_lora_trains_beside_a_ctc_head(conf, trained, datadir, tmp_path):
    overrides = [f"model.path={trained}/base/final", "model.lora.rank=2", "train.steps=2"]
    train(str(conf), "base", str(tmp_path), str(datadir), overrides)
    rows = metrics(tmp_path / "base")
    assert rows[-1]["ctc"] > 0 and not any(
        "ctc" in name for name in load_file(tmp_path / "base/final/model.safetensors")
    )


def test_a_run_without_training_is_the_model_that_it_names(conf, trained, datadir, tmp_path, capsys):
    overrides = [
        f"model.path={trained}/base/final",
        "objective=none",
        "data.train=absent.jsonl",
        "data.dev=absent.jsonl",
    ]
    for message in ("written without training", "already trained; nothing to do"):
        train(str(conf), "base", str(tmp_path), str(datadir), overrides)
        assert message in capsys.readouterr().out
    start, found = (load_speech_lm(str(folder / "base" / "final")) for folder in (trained, tmp_path))
    assert same_weights(start.hf, found.hf)
    assert found.hf.config.to_diff_dict() == start.hf.config.to_diff_dict()
    with pytest.raises(UserError, match="objective must be sft or opd without `model.path`, got none"):
        train(str(conf), "base", str(tmp_path / "other"), str(datadir), ["objective=none"])
