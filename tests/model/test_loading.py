"""Load recognisers: a complete folder loads unchanged, any other is refused with its path and tensor names."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import student, teacher, waveform

from arkasr.builtin.teachers.local import LocalTeacher, LocalTeacherOptions
from arkasr.errors import UserError
from arkasr.interfaces import Teacher
from arkasr.model.loading import load_speech_lm
from arkasr.model.speech_lm.arkasr import ArkSpeechLM
from arkasr.model.speech_lm.qwen3_asr import QwenSpeechLM

MAKERS = {"ark": student, "qwen": teacher}
NORM = "model.language_model.norm.weight"


@pytest.fixture(scope="module", params=MAKERS)
def saved(request, tmp_path_factory):
    """A folder with a complete model, and the model. Tests do not write into it."""
    folder, lm = tmp_path_factory.mktemp(request.param) / "model", MAKERS[request.param](9)
    lm.save(folder)
    return folder, lm


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the folder to break."""
    return shutil.copytree(saved[0], tmp_path / "broken")


def change(folder, edit):
    """Edit the tensors of a folder."""
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
    """Compute the logits of a transcript from a waveform."""
    with torch.no_grad():
        prompts = lm.embed_prompts(lm.encode_audio([clip]), ["English"])
        return lm.transcript_states(prompts, [lm.text_ids("the sea")]) @ lm.head.T


def test_load_speech_lm_restores_a_saved_model(saved):
    folder, lm = saved
    loaded = load_speech_lm(str(folder))
    assert type(loaded) is type(lm) and type(loaded) in (ArkSpeechLM, QwenSpeechLM) and not loaded.training
    assert loaded.tokenizer.get_vocab() == lm.tokenizer.get_vocab() and loaded.stop_ids == lm.stop_ids
    assert torch.equal(loaded.blocked, lm.blocked)
    before, after = lm.hf.state_dict(), loaded.hf.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(scores(loaded, waveform(8000)), scores(lm, waveform(8000)))


def test_load_speech_lm_converts_the_dtype(saved):
    loaded = load_speech_lm(str(saved[0]), "bfloat16")
    assert loaded.head.dtype == torch.bfloat16
    similarity = torch.nn.functional.cosine_similarity(
        scores(loaded, waveform(8000)).float(), scores(saved[1], waveform(8000))
    )
    assert similarity.min() > 0.99


def test_load_speech_lm_refuses_an_absent_folder(tmp_path):
    refused(tmp_path / "nowhere", "no config.json")


def test_load_speech_lm_refuses_a_folder_without_a_model(tmp_path):
    (tmp_path / "notes.txt").write_text("no model")
    refused(tmp_path, "no config.json")


def test_load_speech_lm_names_a_missing_tensor(folder):
    change(folder, lambda tensors: tensors.pop(NORM))
    refused(folder, NORM)


def test_load_speech_lm_names_an_unexpected_tensor(folder):
    change(folder, lambda tensors: tensors.update(surprise=torch.ones(2)))
    refused(folder, "surprise")


def test_load_speech_lm_names_a_tensor_of_another_shape(folder):
    change(folder, lambda tensors: tensors.update({NORM: torch.ones(5)}))
    refused(folder, NORM, "5")


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_load_speech_lm_names_a_truncated_file(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(folder, "model.safetensors")


def test_load_speech_lm_refuses_a_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    refused(folder, "model.safetensors")


@pytest.mark.parametrize("other", ["qwen2", "no-such-type"])
def test_load_speech_lm_refuses_another_model_type(folder, other):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": other}))
    refused(folder, other, "arkasr", "qwen3_asr")


def test_load_speech_lm_names_a_broken_configuration(folder):
    (folder / "config.json").write_text("{")
    refused(folder, "config.json")


def test_load_speech_lm_refuses_a_folder_without_a_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    refused(folder, "tokenizer")


def test_load_speech_lm_refuses_an_unknown_dtype(saved):
    with pytest.raises(UserError, match="float23"):
        load_speech_lm(str(saved[0]), "float23")


def test_local_teacher_scores_and_transcribes_with_a_saved_model(tmp_path):
    lm = teacher(9)
    lm.save(tmp_path)
    local = LocalTeacher(LocalTeacherOptions(path=str(tmp_path), dtype="float32", max_new_tokens=6))
    assert isinstance(local, Teacher) and local.stop_ids == lm.stop_ids
    assert not any(weight.requires_grad for weight in local.lm.parameters())
    clip, ids = waveform(8000), lm.text_ids("the sea")
    view = local.score([clip], ["English"], [ids])
    everything = torch.arange(view.vocab_size).expand(len(ids), -1)
    expected = scores(lm, clip).double().log_softmax(-1)
    torch.testing.assert_close(view.logprobs_at(everything).double(), expected, atol=1e-5, rtol=0)
    texts = local.transcribe([clip, waveform(4000)], ["English", "Chinese"])
    assert len(texts) == 2 and all(isinstance(text, str) for text in texts)


def test_local_teacher_refuses_another_model_type(tmp_path):
    student(9).save(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path}: the model type is 'arkasr', but this teacher needs 'qwen3_asr'"):
        LocalTeacher(LocalTeacherOptions(path=str(tmp_path), dtype="float32"))


class Trap:
    """A malicious pickle: reading it calls a function."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def to_pickle(folder, content=None):
    """Replace the safetensors by pickled weights, or by a pickle of `content`."""
    file = folder / "model.safetensors"
    torch.save(load_file(file) if content is None else content, folder / "pytorch_model.bin")
    file.unlink()


def test_load_speech_lm_reads_pickled_weights_only_if_allowed(saved, folder):
    to_pickle(folder)
    refused(folder, "pytorch_model.bin", "allow_pickle")
    loaded = load_speech_lm(str(folder), allow_pickle=True)
    before, after = saved[1].hf.state_dict(), loaded.hf.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_load_speech_lm_prefers_safetensors_to_pickled_weights(saved, folder):
    torch.save({"surprise": torch.ones(1)}, folder / "pytorch_model.bin")
    for allow_pickle in (False, True):
        loaded = load_speech_lm(str(folder), allow_pickle=allow_pickle)
        assert torch.equal(loaded.head, saved[1].head)


def test_load_speech_lm_runs_no_code_of_an_allowed_pickle(folder, tmp_path):
    to_pickle(folder, {NORM: Trap(tmp_path / "ran")})
    with pytest.raises(UserError, match=r"pytorch_model\.bin: cannot be read"):
        load_speech_lm(str(folder), allow_pickle=True)
    assert not (tmp_path / "ran").exists()
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(UserError, match=r"pytorch_model\.bin: cannot be read"):
        load_speech_lm(str(folder), allow_pickle=True)


@pytest.fixture
def sharded(saved, folder):
    """A copy with its weights in several files."""
    (folder / "model.safetensors").unlink()
    saved[1].hf.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


def test_load_speech_lm_reads_shards(saved, sharded):
    assert torch.equal(load_speech_lm(str(sharded)).head, saved[1].head)


def test_load_speech_lm_names_missing_shards(sharded):
    first, second, *_ = sorted(file.name for file in sharded.glob("model-*.safetensors"))
    for name in (first, second):
        (sharded / name).unlink()
    refused(sharded, first, second, "model.safetensors.index.json")


def test_load_speech_lm_names_a_broken_shard(sharded):
    file = sorted(sharded.glob("model-*.safetensors"))[1]
    file.write_bytes(file.read_bytes()[:100])
    refused(sharded, str(file), "cannot be read as safetensors")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"weight_map": []}',
        b"\xff",
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": "../x"}}',
        "[" * 99999,
    ],
)
def test_load_speech_lm_names_a_broken_index(sharded, text):
    (sharded / "model.safetensors.index.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(sharded, "model.safetensors.index.json: cannot be read")


def test_load_speech_lm_never_runs_code_of_an_unknown_model_type(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    changed = config | {"model_type": "new", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(changed))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    refused(folder, "'new'", "auto_map", "never run")
    assert not (tmp_path / "ran").exists()


def test_load_speech_lm_never_runs_code_beside_a_known_model(saved, folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    names = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer"), "code.Thing")
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": names}))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert torch.equal(load_speech_lm(str(folder)).head, saved[1].head)
    assert not (tmp_path / "ran").exists()


def test_load_speech_lm_names_a_configuration_value_of_another_type(folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["hidden_size"] = "many"
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, "hidden_size", "many")


def test_load_speech_lm_refuses_a_tokenizer_with_more_tokens_than_the_model(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["extra_special_tokens"] = [*config["extra_special_tokens"], "<|surprise|>"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    refused(folder, "the tokenizer has the id", "use the tokenizer of this model")
