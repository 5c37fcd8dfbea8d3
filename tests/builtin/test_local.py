"""The local teachers: plugin check, scores equal to those of their models, and both layouts of Qwen3-ASR."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import batch, eager_to_stop, student, teacher, waveform
from tiny_teachers import glm, save_original_qwen, save_whisper

from arkasr.config.schema import DistillConfig, RolloutConfig
from arkasr.distill.step import Opd
from arkasr.distributions.views import DenseView, HeadView
from arkasr.errors import UserError
from arkasr.model.generation import generate
from arkasr.model.loading import load_speech_lm
from arkasr.plugins import registry
from arkasr.testing import check_teacher, check_token_mapper
from arkasr.utils.timing import Phases

LOCAL = {"qwen3_asr": teacher, "glmasr": glm, "arkasr": student}
LENGTHS = [17600, 4001, 48000]


def create(name, folder, dtype="float32"):
    return registry.create("teacher", name, {"path": str(folder), "dtype": dtype, "max_new_tokens": 6}, device="cpu")


def all_logprobs(view):
    positions = len(view.entropy())
    return view.logprobs_at(torch.arange(view.vocab_size).expand(positions, -1))


def reference_logits(lm, clip, language, ids):
    """Return logits [len(ids), V] of one clip, computed alone in one pass of the whole model with its prompt."""
    with torch.no_grad():
        [prompt] = lm.embed_prompts(lm.encode_audio([clip]), [language])
        text = lm.hf.get_input_embeddings().weight[ids]
        logits = lm.hf(inputs_embeds=torch.cat([prompt, text])[None]).logits[0]
    return logits[len(prompt) - 1 : -1]


@pytest.fixture(scope="module", params=LOCAL)
def saved(request, tmp_path_factory):
    """Return a teacher's name, its model, and the folder where the model is saved."""
    folder = tmp_path_factory.mktemp(request.param)
    lm = LOCAL[request.param](5)
    lm.save(folder)
    return request.param, lm, folder


@pytest.mark.slow
def test_local_teacher_passes_plugin_check(saved):
    name, _, folder = saved
    check_teacher(create(name, folder))
    check_teacher(create(name, folder, "bfloat16"), tolerance=0.5)


def test_local_teacher_scores_match_whole_model(saved):
    name, lm, folder = saved
    local, languages = create(name, folder), ["English", "Chinese", "English"]
    clips = [waveform(n, seed) for seed, n in enumerate(LENGTHS)]
    ids = [lm.text_ids("the sea"), [lm.stop_ids[0]], lm.text_ids("one two")[:-1]]
    logits = [reference_logits(lm, *case) for case in zip(clips, languages, ids)]
    expected = torch.cat(logits)
    if name == "arkasr":  # as for the student, ids that never occur in a transcript have probability 0
        expected = expected.masked_fill(lm.blocked, -torch.inf)
    actual = all_logprobs(local.score(clips, languages, ids))
    assert actual.dtype == torch.float32 and expected[expected.isfinite()].std() > 0.1
    torch.testing.assert_close(actual, expected.log_softmax(-1), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", LOCAL)
def test_local_teacher_transcribes_text_without_special_tokens(name, tmp_path):
    lm = eager_to_stop(LOCAL[name](7), 1.5)
    lm.save(tmp_path)
    texts = create(name, tmp_path).transcribe([waveform(n, seed) for seed, n in enumerate(LENGTHS)], ["English"] * 3)
    assert any(texts) and not any("<|" in text for text in texts)


@pytest.mark.parametrize("name", LOCAL)
def test_local_teacher_reports_cut_and_looping_transcripts(name, tmp_path):
    """A model that can generate one token only, as a transcript of 12 equal tokens is a loop."""
    eager_to_stop(LOCAL[name](7), 2.0).save(tmp_path)
    options = {"path": str(tmp_path), "dtype": "float32", "max_new_tokens": 20, "tokens_per_second": 9.0}
    local, lm = registry.create("teacher", name, options, device="cpu"), load_speech_lm(str(tmp_path))
    clips = [waveform(n, seed) for seed, n in enumerate([16000, 8000, 48000, 9000, 4000])]
    with torch.no_grad():
        generated = generate(lm, lm.embed_prompts(lm.encode_audio(clips), ["English"] * 5), [11, 7, 20, 8, 5])
    texts = local.transcribe(clips, ["English"] * 5)
    assert [text.stopped for text in texts] == generated.stopped
    assert [text.num_tokens for text in texts] == [len(ids) for ids in generated.ids]
    local.lm.blocked[:] = True
    local.lm.blocked[40] = False  # only one token is left
    texts = local.transcribe(clips, ["English"] * 5)
    assert [(text.stopped, text.num_tokens) for text in texts] == [(False, n) for n in (11, 7, 20, 8, 5)]
    assert [text.looping for text in texts] == [False, False, True, False, False]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LOCAL, "whisper"])
def test_default_mapper_aligns_with_local_teacher(name, tmp_path):
    if name == "whisper":
        save_whisper(tmp_path)
    else:
        LOCAL[name](1).save(tmp_path)
    sides = {"student": student(2), "teacher": create(name, tmp_path)}
    mapper = registry.create("token_mapper", "shared_strings", {}, **sides)
    check_token_mapper(mapper, **sides)
    alignment = mapper.align([sides["student"].text_ids("the sea shore")])
    assert sides["teacher"].tokenizer.decode(alignment.teacher_ids[0][:-1]) == "the sea shore"
    assert alignment.teacher_ids[0][-1] == sides["teacher"].stop_ids[0]


@pytest.mark.parametrize("name", [*LOCAL, "whisper"])
def test_student_loss_decreases_with_each_teacher(name, tmp_path):
    if name == "whisper":
        save_whisper(tmp_path)
    else:
        LOCAL[name](1).save(tmp_path)
    lm, local = eager_to_stop(student(2), 2.0), create(name, tmp_path)
    mapper = registry.create("token_mapper", "shared_strings", {}, student=lm, teacher=local)
    loss = registry.create("loss", "union_topk_kl", {})
    one = Opd(local, mapper, loss, RolloutConfig(max_new_tokens=6), DistillConfig(top_k=4))
    scored, optimizer, losses = one.collect(lm, batch([16000, 9000]), Phases()), torch.optim.Adam(lm.parameters()), []
    for _ in range(4):
        scored.rollout.audio = lm.encode_audio(scored.batch.waveforms)  # with the current weights
        total, count = one.rescore(lm, scored)
        losses.append(total.item() / count.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert 0 < losses[-1] < losses[0]


def test_local_teacher_rejects_model_of_other_type(saved):
    name, _, folder = saved
    for other in LOCAL.keys() - {name}:
        with pytest.raises(UserError, match=f"{folder}: the model type is '{name}', but this teacher needs '{other}'"):
            create(other, folder)
    with pytest.raises(UserError, match=f"{folder}: model_type '{name}' in config.json is not one of whisper"):
        create("whisper", folder)


@pytest.mark.parametrize("name", ["qwen3_asr", "glmasr", "arkasr", "whisper"])
def test_pickled_weights_need_allow_pickle(name, tmp_path):
    save_whisper(tmp_path) if name == "whisper" else LOCAL[name](5).save(tmp_path)
    same = create(name, tmp_path).transcribe([waveform(8000)], ["English"])
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"pytorch_model\.bin: pickled.*teacher\.options\.allow_pickle=true"):
        create(name, tmp_path)
    options = {"path": str(tmp_path), "dtype": "float32", "max_new_tokens": 6, "allow_pickle": True}
    local = registry.create("teacher", name, options, device="cpu")
    assert local.transcribe([waveform(8000)], ["English"]) == same


def test_arkasr_teacher_equals_same_student(tmp_path):
    lm = student(3)
    lm.save(tmp_path)
    ids = [lm.text_ids("the sea"), lm.text_ids("one")[:-1]]
    clips = [waveform(16000), waveform(9000, 1)]
    teacher_view = create("arkasr", tmp_path).score(clips, ["English"] * 2, ids)
    with torch.no_grad():
        states = lm.transcript_states(lm.embed_prompts(lm.encode_audio(clips), ["English"] * 2), ids)
    student_view = HeadView(states, lm.head, lm.blocked).dense()
    torch.testing.assert_close(all_logprobs(teacher_view), student_view.logprobs(), atol=1e-5, rtol=0)


def test_16_bit_head_is_read_in_float32(tmp_path):
    """Neither the head nor the logits are rounded again. Compare with float64 arithmetic on the same states."""
    lm = teacher(6)
    with torch.no_grad():
        lm.head.mul_(8.0)  # logits so large that bfloat16 rounds them by tenths
    lm.save(tmp_path)
    local, ids = create("qwen3_asr", tmp_path, "bfloat16"), lm.text_ids("the quick brown fox")
    clip = waveform(16000)
    with torch.no_grad():
        states = local.lm.transcript_states(local.lm.embed_prompts(local.lm.encode_audio([clip]), ["English"]), [ids])
    assert states.dtype == local.lm.head.dtype == torch.bfloat16
    exact = (states.double() @ local.lm.head.double().T).log_softmax(-1)
    actual = all_logprobs(local.score([clip], ["English"], [ids]))
    torch.testing.assert_close(actual.double(), exact, atol=1e-4, rtol=1e-5)
    rounded = DenseView(states @ local.lm.head.T).logprobs().double()
    assert (rounded - exact).abs().max() > 0.01


@pytest.mark.parametrize("name", ["qwen3_asr"])
@pytest.mark.parametrize("language", ["Klingon", "Croatian", ""])
def test_unknown_language_raises(name, language, tmp_path):
    LOCAL[name](1).save(tmp_path)
    with pytest.raises(UserError, match=f"language '{language}'.*Cantonese, Chinese, .*English"):
        create(name, tmp_path).score([waveform(8000)], [language], [[5]])


def test_a_code_gives_the_prompt_of_the_name():
    lm = LOCAL["qwen3_asr"](1)
    assert lm.prompt_text("zh") == lm.prompt_text("Chinese") == lm.prompt_text("Mandarin")
    assert "language German<asr_text>" in lm.prompt_text("de-AT")[1]


@pytest.mark.parametrize("name", [*LOCAL, "whisper"])
@pytest.mark.parametrize(
    ("option", "value"), [("max_new_tokens", 0), ("tokens_per_second", -1.0), ("max_tokens", 9), ("dtype", 16)]
)
def test_invalid_teacher_options_raise(name, option, value):
    with pytest.raises(UserError, match=f"options of teacher '{name}'.*{option}"):
        registry.check_plugin("teacher", name, {option: value})


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Return a Qwen3-ASR and a folder where it is saved in the original layout."""
    folder = tmp_path_factory.mktemp("original")
    lm = teacher(11)
    save_original_qwen(lm, folder)
    return lm, folder


def test_original_layout_loads_exact_weights(original):
    lm, folder = original
    hf = load_speech_lm(str(folder)).hf
    expected = lm.hf.state_dict()
    assert expected.keys() == hf.state_dict().keys()
    assert all(torch.equal(value, expected[key]) for key, value in hf.state_dict().items())
    assert hf.config.audio_config.max_position_embeddings == 13


def test_original_layout_is_saved_in_transformers_layout(original, tmp_path):
    load_speech_lm(str(original[1])).save(tmp_path)
    again = load_speech_lm(str(tmp_path)).hf.state_dict()
    assert all(torch.equal(value, again[key]) for key, value in original[0].hf.state_dict().items())


def test_original_layout_gives_exact_scores(original):
    lm, folder = original
    loaded = load_speech_lm(str(folder))
    clip, ids = waveform(20000), lm.text_ids("the sea")
    assert torch.equal(*(reference_logits(model, clip, "English", ids) for model in (lm, loaded)))
    check_teacher(create("qwen3_asr", folder))


@pytest.mark.parametrize("change", ["missing", "unexpected", "renamed"])
def test_original_layout_with_wrong_tensors_raises(change, tmp_path):
    save_original_qwen(teacher(2), tmp_path)
    state, norm = load_file(tmp_path / "model.safetensors"), "thinker.model.norm.weight"
    if change != "unexpected":
        value = state.pop(norm)
    if change != "missing":
        state["thinker.model.other.weight"] = torch.zeros(3) if change == "unexpected" else value
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    named = {"missing": "norm.weight", "unexpected": "other.weight", "renamed": "norm.weight.*other.weight"}[change]
    with pytest.raises(UserError, match=f"{tmp_path}.*{named}"):
        load_speech_lm(str(tmp_path))


@pytest.mark.parametrize("key", ["rope_theta", "head_dim", "num_key_value_heads"])
def test_original_layout_uses_its_decoder_configuration(key, tmp_path):
    """The decoder's values in the configuration are not replaced by defaults."""
    save_original_qwen(teacher(2), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    original_value = config["thinker_config"]["text_config"][key]
    config["thinker_config"]["text_config"][key] = original_value * 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    load = partial(load_speech_lm, str(tmp_path))
    if key == "rope_theta":
        assert load().hf.config.text_config.rope_parameters["rope_theta"] == 2 * original_value
    else:
        with pytest.raises(UserError, match="k_proj"):
            load()


@pytest.mark.slow
def test_control_tokens_have_probability_0_on_request(saved):
    name, lm, folder = saved
    options = {"path": str(folder), "dtype": "float32"}
    plain, masking = (
        registry.create("teacher", name, options | changes, device="cpu")
        for changes in ({}, {"mask_control_tokens": True})
    )
    clips, ids = batch([9000]), [[5, 9, lm.stop_ids[0]]]
    whole, masked = (all_logprobs(t.score(clips.waveforms, clips.languages, ids)) for t in (plain, masking))
    control = [i for i in lm.tokenizer.added_tokens_decoder if i != lm.stop_ids[0]]
    others = [i for i in range(whole.shape[1]) if i not in control]
    assert len(control) >= 5 and masked[:, control].isneginf().all()
    torch.testing.assert_close(masked[:, others], whole[:, others].log_softmax(-1), rtol=1e-5, atol=1e-5)
