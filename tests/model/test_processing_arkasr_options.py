"""The processor's options of transformers: groups of keyword arguments, whole prompts, and chat templates."""

from __future__ import annotations

import pytest
import torch
from tiny import student, waveform

from arkasr import ArkasrProcessor, UserError

PROMPT = "<|user|><|begin_of_audio|><|audio|><|end_of_audio|>Please transcribe this audio.<|assistant|>"
CLIP = waveform(4000)
TURN = {"role": "user", "content": [{"type": "audio", "audio": CLIP}, {"type": "text", "text": "say"}]}


@pytest.fixture(scope="module")
def processor():
    lm = student(5)
    return ArkasrProcessor.from_config(lm.hf.config, lm.tokenizer)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_whole_prompts_and_transcripts_give_the_same_inputs(processor):
    assert same(processor(CLIP, PROMPT), processor(CLIP))
    assert same(processor(CLIP, PROMPT + "the sea<|im_end|>"), processor(CLIP, "the sea"))
    mixed = processor([CLIP, CLIP], [PROMPT, "the sea"])
    assert mixed["input_ids"][1].tolist() == processor(CLIP, "the sea")["input_ids"][0].tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"max_length": 40, "padding": "max_length"},
        {"text_kwargs": {"max_length": 40, "padding": "max_length"}},
        {"text_kwargs": {"max_length": 40}, "common_kwargs": {"padding": "max_length"}},
    ],
    ids=["flat", "text_kwargs", "common_kwargs"],
)
def test_lengths_apply_to_the_text_only(processor, options):
    plain, padded = processor(CLIP), processor(CLIP, **options)
    used = plain["input_ids"].shape[1]
    assert padded["input_ids"].shape == (1, 40) and padded["attention_mask"].sum() == used < 40
    assert torch.equal(padded["input_ids"][:, -used:], plain["input_ids"])
    assert torch.equal(padded["input_features"], plain["input_features"])


def test_padding_side_and_arrays_on_request(processor):
    clips = [waveform(3000), waveform(16000)]
    right = processor(clips, text_kwargs={"padding_side": "right"})
    assert right["attention_mask"][0].tolist() == sorted(right["attention_mask"][0].tolist(), reverse=True)
    arrays = processor(clips, return_tensors="np")
    assert {type(value).__name__ for value in arrays.values()} == {"ndarray"}
    for name, tensor in processor(clips).items():
        assert (arrays[name] == tensor.numpy()).all()


def test_text_alone_is_tokenised(processor):
    inputs = processor(text=["the sea", "the lazy dog"])
    assert inputs.keys() == {"input_ids", "attention_mask"}
    assert processor.batch_decode(inputs["input_ids"], skip_special_tokens=True) == ["the sea", "the lazy dog"]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda p: p(), "neither audio nor text"),
        (lambda p: p(text=PROMPT), r"1 <\|audio\|> in the text but no clips"),
        (lambda p: p([CLIP] * 2, [PROMPT] * 3), "should be the same as the number of clips"),
        (lambda p: p(CLIP, PROMPT + PROMPT), r"2 x <\|audio\|> in the prompt"),
        (lambda p: p(CLIP, audio_kwargs={"truncation": True}), "audio_kwargs truncation: .*neither padded nor cut"),
        (lambda p: p.apply_chat_template([{"role": "tool", "content": "x"}]), "role .*system, user, assistant.*'tool'"),
        (lambda p: p.apply_chat_template([[TURN], [{"role": "user", "content": "x"}]]), "0 audio parts .* none in all"),
    ],
)
def test_inputs_that_do_not_match_are_refused(processor, call, message):
    with pytest.raises(UserError, match=message):
        call(processor)


def test_rate_is_checked_in_each_group(processor):
    for options in ({"sampling_rate": 8000}, {"audio_kwargs": {"sampling_rate": 8000}}):
        with pytest.raises(UserError, match="sampling_rate=8000"):
            processor(CLIP, **options)
    assert same(processor(CLIP, audio_kwargs={"sampling_rate": 16000}), processor(CLIP))


def test_system_turns_and_continued_answers_are_rendered(processor):
    render = processor.apply_chat_template
    turns = [{"role": "system", "content": "be brief"}, TURN, {"role": "assistant", "content": "the"}]
    before = "<|system|>be brief<|user|><|begin_of_audio|><|audio|><|end_of_audio|>say<|assistant|>the"
    assert render(turns, tokenize=False) == before + "<|im_end|>"
    assert render(turns, tokenize=False, continue_final_message=True) == before
    ids = render(turns, continue_final_message=True, return_dict=False)[0]
    assert processor.tokenizer.decode(ids[-1:]) == "the" and processor.audio_token_id in ids


def test_text_conversations_and_other_templates(processor):
    text = [{"role": "user", "content": "the sea"}]
    inputs = processor.apply_chat_template([text, text], add_generation_prompt=True)
    assert inputs.keys() == {"input_ids", "attention_mask"} and len(inputs["input_ids"]) == 2
    template = "{{ prefix }}{% for m in messages %}{{ m.content }}{% endfor %}"
    assert processor.apply_chat_template(text, template, tokenize=False, prefix="> ") == "> the sea"


def test_assistant_tokens_are_marked(processor):
    template = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}|{% endfor %}"
    text = [{"role": "assistant", "content": "the sea"}]
    inputs = processor.apply_chat_template(text, template, return_assistant_tokens_mask=True)
    marked = inputs["input_ids"][inputs["assistant_masks"].bool()]
    assert processor.tokenizer.decode(marked) == "the sea"


def test_files_are_named_by_url_and_audio_keys(processor, tmp_path):
    import soundfile

    path = str(tmp_path / "two channels.wav")
    soundfile.write(path, torch.stack([CLIP * 2, CLIP * 0], dim=1).numpy(), 16000, subtype="FLOAT")
    expected = processor(CLIP)
    for key in ("url", "path", "audio"):
        turn = [{"role": "user", "content": [{"type": "audio", key: path}, {"type": "text", "text": "x"}]}]
        found = processor.apply_chat_template(turn)["input_features"]
        torch.testing.assert_close(found, expected["input_features"], atol=1e-5, rtol=1e-5)
