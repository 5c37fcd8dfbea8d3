"""Students of every type, from the rollout to the export: Qwen3-ASR, GLM-ASR, Ark-ASR with the encoder of Whisper."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import soundfile
import torch
from corpus_fixture import clips, make_trainer, metrics
from lhotse import CutSet
from planned_runs import planned
from safetensors.torch import load_file
from tiny import eager_to_stop, teacher
from tiny_teachers import glm, save_whisper
from training_runs import cost_free, train_until
from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM, AutoProcessor

from arkasr.config.load import load_config
from arkasr.errors import UserError
from arkasr.evaluation.decode import decode
from arkasr.export.export import export
from arkasr.model.loading import load_speech_lm
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.training.train import train

QWEN3 = Path(__file__).parents[2] / "egs/conf/qwen3.yaml"
TYPES = ["qwen3_asr", "glmasr", "whisper encoder"]
AUDIO_TOKENS = {"qwen3_asr": "<|audio_pad|>", "glmasr": "<|pad|>"}


@pytest.fixture(scope="module")
def students(trained, tmp_path_factory):
    """Return the overrides that select each student. The teacher is the trained Qwen3-ASR."""
    folders = {name: tmp_path_factory.mktemp(name.partition(" ")[0]) for name in TYPES}
    for name, make in (("qwen3_asr", teacher), ("glmasr", glm)):
        eager_to_stop(make(7), 2.0).save(folders[name])
    save_whisper(folders["whisper encoder"], 7)
    common = [f"teacher.options.path={trained}/teacher/final", "optim.lr=1e-3"]
    found = {name: [*common, f"model.type={name}", f"model.path={folders[name]}"] for name in ("qwen3_asr", "glmasr")}
    parts = ["model.path=", f"model.encoder={folders['whisper encoder']}", "model.sizes.audio=null"]
    return found | {"whisper encoder": [*common, *parts, "data.max_clip_seconds=2"]}


def written(folder: Path) -> bytes:
    return (folder / "base_opd" / "final" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module", params=TYPES)
def finished(request, students, conf, datadir, tmp_path_factory):
    """Train a student of each type without and with an interruption. Return its type and both experiments."""
    folder = tmp_path_factory.mktemp("finished")
    changes = [*students[request.param], "train.steps=4", "train.save_every=2", "train.eval_every=4"]
    changes += ["rollout.temperature=1.0", "rollout.samples=2", "distill.diagnose_every=2"]
    whole, cut = ([str(conf), "base_opd", str(folder / name), str(datadir), changes] for name in ("whole", "cut"))
    train(*whole)
    with pytest.MonkeyPatch.context() as patch:
        train_until(patch, 4, *cut)
    train(*cut)
    return request.param, folder / "whole", folder / "cut"


@pytest.mark.slow
def test_student_of_any_type_is_distilled_and_resumes_bitwise(finished):
    _, whole, cut = finished
    rows = metrics(whole / "base_opd")
    assert [row["step"] for row in rows] == [1, 2, 3, 4] and all(row["loss"] > 0 for row in rows)
    assert rows[-1]["dev_error"] >= 0 and {
        row["transcripts"] / row["clips"] for row in rows if "transcripts" in row
    } <= {2}
    assert cost_free(rows) == cost_free(metrics(cut / "base_opd"))
    assert written(whole) == written(cut)


@pytest.mark.slow
def test_student_of_any_type_is_decoded_and_exported_for_transformers(finished, datadir):
    """The exported folder loads by Auto classes only, and writes the transcripts of `arkasr decode`."""
    name, expdir, _ = finished
    decode(str(expdir), str(datadir), ["base_opd"])
    export(str(expdir), str(datadir), ["base_opd"])
    hypotheses = [json.loads(line) for line in (expdir / "base_opd/decode/test-a.jsonl").read_text().splitlines()]
    texts = {row["id"]: row["hypothesis"] for row in hypotheses}
    folder = expdir / "base_opd" / "export"
    lm, processor = load_speech_lm(str(folder)), AutoProcessor.from_pretrained(folder)
    kind = AutoModelForCausalLM if name == "whisper encoder" else AutoModelForMultimodalLM
    model, (before, after) = kind.from_pretrained(folder), lm.prompt_text("English")
    for cut in CutSet.from_file(datadir / "test-a.jsonl.gz"):
        samples = soundfile.read(cut.recording.sources[0].source, dtype="float32")[0]
        if name == "whisper encoder":
            inputs = processor(samples, sampling_rate=16000)
        else:
            inputs = processor(text=before + AUDIO_TOKENS[name] + after, audio=samples)
        ids = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
        assert lm.text(ids.tolist()) == texts[cut.id]
    assert len(set(texts.values())) > 1
    card = (folder / "README.md").read_text(encoding="utf-8")
    titles = {"qwen3_asr": "Qwen3-ASR", "glmasr": "GLM-ASR", "whisper encoder": "Ark-ASR"}
    assert f"# {titles[name]} " in card and ("the architecture of Ark-ASR" in card) == (name == "whisper encoder")


@pytest.mark.slow
def test_published_layout_of_other_students_has_the_names_that_engines_read(finished, datadir, tmp_path):
    """The prefixes are those of the loaders of vLLM 0.33 and SGLang 0.5.23."""
    name, expdir, _ = finished
    if name == "whisper encoder":
        pytest.skip("an Ark-ASR, whose learned positions tests/export refuses")
    export(str(expdir), str(datadir), ["base_opd"], published=True, outdir=str(tmp_path / "out"))
    prefixes = {
        "qwen3_asr": ("thinker.audio_tower.", "thinker.model."),
        "glmasr": ("audio_tower.", "language_model.model.", "multi_modal_projector."),
    }
    names = load_file(tmp_path / "out" / "model.safetensors").keys()
    assert {prefix for each in names for prefix in prefixes[name] if each.startswith(prefix)} == set(prefixes[name])
    assert all(each.startswith(prefixes[name]) for each in names)
    found, original = (load_speech_lm(str(path)).hf for path in (tmp_path / "out", expdir / "base_opd" / "final"))
    assert all(torch.equal(found.state_dict()[key], value) for key, value in original.state_dict().items())
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "was published, for vLLM and SGLang" in card and "vllm serve ." in card


@pytest.mark.slow
@pytest.mark.parametrize("name", TYPES)
def test_frozen_parts_stay_and_checkpointed_activations_change_nothing(name, students, conf, datadir, tmp_path):
    """One step with and without activation checkpointing, with a frozen encoder, and with a frozen decoder."""
    results, parts = {}, ("audio_tower", "language_model")
    for freeze, checkpointing in (("encoder", "none"), ("encoder", "blocks"), ("decoder", "blocks")):
        changes = [*students[name], f"model.freeze=[{freeze}]", f"fsdp.activation_checkpointing={checkpointing}"]
        trainer = make_trainer(conf, "base_opd", tmp_path / f"{freeze}-{checkpointing}", datadir, *changes)
        model = trainer.student.hf.model
        before = {part: copy.deepcopy(getattr(model, part).state_dict()) for part in parts}
        row = trainer.take_step(iter([clips(datadir / "train.jsonl.gz", [0, 1])]))
        after = {part: getattr(model, part).state_dict() for part in parts}
        moved = [
            part for part in parts if any(not torch.equal(before[part][key], after[part][key]) for key in before[part])
        ]
        assert moved == ["audio_tower" if freeze == "decoder" else "language_model"]
        results[freeze, checkpointing] = row["loss"], row["gradient_norm"]
    assert results["encoder", "none"] == pytest.approx(results["encoder", "blocks"], rel=1e-5)
    assert results["decoder", "blocks"][0] == pytest.approx(results["encoder", "none"][0], rel=1e-5)


@pytest.mark.slow
def test_prompts_of_student_and_teacher_name_the_language_of_the_clip(students, conf, datadir, tmp_path, monkeypatch):
    trainer = make_trainer(conf, "base_opd", tmp_path, datadir, *students["qwen3_asr"])
    told, prompts = [], SpeechLM.embed_prompts

    def embed_prompts(self, audio, languages):
        told.append((self is trainer.student, tuple(languages)))
        return prompts(self, audio, languages)

    monkeypatch.setattr(SpeechLM, "embed_prompts", embed_prompts)
    batch = clips(datadir / "train.jsonl.gz", [0, 1])
    batch.languages = ["German", "Chinese"]
    trainer.take_step(iter([batch]))
    assert {languages for _, languages in told} == {("German", "Chinese")} and {who for who, _ in told} == {True, False}
    texts = [trainer.student.prompt_text(language)[1] for language in batch.languages]
    assert [text.partition("\n")[2].partition("\n")[2] for text in texts] == [
        "language German<asr_text>",
        "language Chinese<asr_text>",
    ]


def test_example_configuration_distils_the_small_qwen_from_the_large_one():
    config = load_config(QWEN3, "base_opd", "E", "D")
    assert (config.model.type, config.model.path, config.model.encoder) == ("qwen3_asr", "E/base/final", "")
    assert config.teacher.options["path"] == "Qwen/Qwen3-ASR-1.7B-hf" and config.mapper.name == "identity"
    base = load_config(QWEN3, "base", "E", "D")
    assert (base.objective, base.model.path) == ("none", "Qwen/Qwen3-ASR-0.6B-hf")


@pytest.mark.slow
@pytest.mark.parametrize("run", ["base_opd", "base_td", "base_td_opd"])
def test_plan_of_the_example_counts_the_small_qwen_and_fits_one_gpu(run):
    result = planned(run, conf=str(QWEN3), gpus=1, hours=960.0, gpu_memory=80e9 / 2**30)
    assert 0.75e9 < result["student"]["parameters"]["total"] < 0.8e9
    assert result["student"]["source"].endswith("run base: the table of published sizes")
    assert max(result["memory_gib"]["peaks"].values()) + 2 < 80e9 / 2**30 - 20
    assert result["all"]["epochs"] == pytest.approx(3 if run == "base_td" else 1, rel=1e-2)


@pytest.mark.slow
def test_plan_of_a_glm_student_counts_its_parameters():
    words = ("model.type=glmasr", "model.path=zai-org/GLM-ASR-Nano-2512", "mapper.name=shared_strings")
    result = planned("base_opd", words, gpus=8, hours=960.0)
    assert result["student"]["parameters"]["total"] > 2e9 and result["step"]["seconds"] > 0


def test_glm_student_without_a_model_is_refused():
    with pytest.raises(UserError, match="model.path must be set with type glmasr, which is not built from parts"):
        load_config(QWEN3.with_name("paper.yaml"), "base", "E", "D", ["model.type=glmasr"])


def test_language_that_the_student_does_not_know_is_refused(students):
    lm = load_speech_lm(students["qwen3_asr"][-1].removeprefix("model.path="))
    with pytest.raises(UserError, match="Qwen3-ASR supports"):
        lm.prompt_text("Klingon")


def test_saved_folders_hold_the_processor_of_transformers(students):
    for name, classes in (("qwen3_asr", "Qwen3ASRProcessor"), ("glmasr", "GlmAsrProcessor")):
        folder = students[name][-1].removeprefix("model.path=")
        assert type(AutoProcessor.from_pretrained(folder)).__name__ == classes
        assert load_file(f"{folder}/model.safetensors").keys()
