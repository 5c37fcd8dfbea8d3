"""Loading a recogniser: what is whole loads, what is not is refused with its path and its keys."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import student, teacher, waveform

from arkasr.builtin.teachers import LocalTeacher, LocalTeacherOptions
from arkasr.interfaces import Teacher, UserError
from arkasr.model.loading import load_speech_lm
from arkasr.model.speech_lm import ArkSpeechLM, QwenSpeechLM

MAKERS = {"ark": student, "qwen": teacher}
NORM = "model.language_model.norm.weight"


@pytest.fixture(scope="module", params=MAKERS)
def saved(request, tmp_path_factory):
    """A folder with a whole model, and the model; not to be written into."""
    folder, lm = tmp_path_factory.mktemp(request.param) / "model", MAKERS[request.param](9)
    lm.save(folder)
    return folder, lm


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to break."""
    return shutil.copytree(saved[0], tmp_path / "broken")


def change(folder, edit):
    """Rewrite the tensors of a folder."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def refused(folder, *words):
    with pytest.raises(UserError) as caught:
        load_speech_lm(str(folder))
    for word in (str(folder), *words):
        assert word in str(caught.value)


def scores(lm, clip):
    """Logits of a transcript, from a waveform."""
    with torch.no_grad():
        prompts = lm.embed_prompts(lm.encode_audio([clip]), ["English"])
        return lm.transcript_states(prompts, [lm.text_ids("the sea")]) @ lm.head.T


def test_a_whole_model_loads_as_it_was(saved):
    folder, lm = saved
    loaded = load_speech_lm(str(folder))
    assert type(loaded) is type(lm) and type(loaded) in (ArkSpeechLM, QwenSpeechLM) and not loaded.training
    assert loaded.tokenizer.get_vocab() == lm.tokenizer.get_vocab() and loaded.stop_ids == lm.stop_ids
    assert torch.equal(loaded.blocked, lm.blocked)
    before, after = lm.hf.state_dict(), loaded.hf.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(scores(loaded, waveform(8000)), scores(lm, waveform(8000)))


def test_a_model_loads_in_another_dtype(saved):
    loaded = load_speech_lm(str(saved[0]), "bfloat16")
    assert loaded.head.dtype == torch.bfloat16
    close = torch.nn.functional.cosine_similarity(
        scores(loaded, waveform(8000)).float(), scores(saved[1], waveform(8000))
    )
    assert close.min() > 0.99


def test_a_folder_that_is_absent(tmp_path):
    refused(tmp_path / "nowhere", "no config.json")


def test_a_folder_without_a_model(tmp_path):
    (tmp_path / "notes.txt").write_text("no model")
    refused(tmp_path, "no config.json")


def test_a_missing_tensor(folder):
    change(folder, lambda tensors: tensors.pop(NORM))
    refused(folder, NORM)


def test_a_tensor_too_many(folder):
    change(folder, lambda tensors: tensors.update(surprise=torch.ones(2)))
    refused(folder, "surprise")


def test_a_tensor_of_another_shape(folder):
    change(folder, lambda tensors: tensors.update({NORM: torch.ones(5)}))
    refused(folder, NORM, "5")


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_cut_file(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(folder, "model.safetensors")


def test_no_weights_at_all(folder):
    (folder / "model.safetensors").unlink()
    refused(folder, "model.safetensors")


@pytest.mark.parametrize("other", ["qwen2", "no-such-type"])
def test_another_kind_of_model(folder, other):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": other}))
    refused(folder, other, "arkasr", "qwen3_asr")


def test_a_configuration_that_is_no_json(folder):
    (folder / "config.json").write_text("{")
    refused(folder, "config.json")


def test_no_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    refused(folder, "tokenizer")


def test_a_dtype_that_is_none(saved):
    with pytest.raises(UserError, match="float23"):
        load_speech_lm(str(saved[0]), "float23")


def test_a_teacher_scores_and_transcribes_what_was_saved(tmp_path):
    lm = teacher(9)
    lm.save(tmp_path)
    made = LocalTeacher(LocalTeacherOptions(path=str(tmp_path), dtype="float32", max_new_tokens=6))
    assert isinstance(made, Teacher) and made.stop_ids == lm.stop_ids
    assert not any(weight.requires_grad for weight in made.lm.parameters())
    clip, ids = waveform(8000), lm.text_ids("the sea")
    view = made.score([clip], ["English"], [ids])
    everything = torch.arange(view.vocab_size).expand(len(ids), -1)
    expected = scores(lm, clip).double().log_softmax(-1)
    torch.testing.assert_close(view.logprobs_at(everything).double(), expected, atol=1e-5, rtol=0)
    texts = made.transcribe([clip, waveform(4000)], ["English", "Chinese"])
    assert len(texts) == 2 and all(isinstance(text, str) for text in texts)


def test_a_teacher_of_another_kind(tmp_path):
    student(9).save(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path}.*'arkasr', not 'qwen3_asr'"):
        LocalTeacher(LocalTeacherOptions(path=str(tmp_path), dtype="float32"))
