"""The processor against the published prompt, transformers' classes, and the greedy transcripts of arkasr."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch
from tiny import eager_to_stop, student, student_tokenizer, waveform
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoFeatureExtractor,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    Qwen2Tokenizer,
)

from arkasr import ArkasrFeatureExtractor, ArkasrProcessor, UserError
from arkasr.model.generation import generate
from arkasr.model.loading import load_speech_lm
from arkasr.model.speech_lm.arkasr import ArkSpeechLM
from arkasr.model.tokenization import ARK_TOKENS

INSTRUCTION = "Please transcribe this audio."
PIECES = ["Please", "\u0120trans", "cribe", "\u0120this", "\u0120audio", "."]  # Qwen's tokens; \u0120 is a space
PROMPT = "<|user|><|begin_of_audio|><|audio|><|end_of_audio|>Please transcribe this audio.<|assistant|>"
SAMPLES = [192800, 16000, 8000, 4001, 1600, 1599, 160, 159, 1]


def conversation(audio, instruction=INSTRUCTION):
    kind = "path" if isinstance(audio, str) else "audio"
    return [{"role": "user", "content": [{"type": "audio", kind: audio}, {"type": "text", "text": instruction}]}]


def qwen_tokenizer():
    """Return byte-level BPE that splits the instruction as Qwen2.5 does."""
    steps = [(piece[:n], piece[n]) for piece in PIECES for n in range(1, len(piece))]
    merges = list(dict.fromkeys(steps))
    tokens = [*sorted(ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    ends = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=merges, **ends)
    tokenizer.add_special_tokens({"additional_special_tokens": ARK_TOKENS})
    return tokenizer


@pytest.fixture(scope="module")
def lm():
    """A student with large logits for a blocked token, so that greedy decoding depends on the blocked ids."""
    model = eager_to_stop(student(5), 2.0)
    with torch.no_grad():
        model.head[model.tokenizer.convert_tokens_to_ids("<|user|>")] = model.head.abs().amax(0)
    return model


@pytest.fixture(scope="module")
def processor(lm):
    return ArkasrProcessor.from_config(lm.hf.config, lm.tokenizer)


@pytest.fixture(scope="module")
def folder(lm, tmp_path_factory):
    """A folder written by `SpeechLM.save`. Tests do not write into it."""
    path = tmp_path_factory.mktemp("processor") / "model"
    lm.save(path)
    return path


@pytest.fixture(scope="module")
def wav(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "clip.wav"
    soundfile.write(path, waveform(9000, 3).numpy(), 16000, subtype="FLOAT")
    return str(path)


def transcripts(lm, clips, cap):
    """Return greedy ids decoded by arkasr."""
    with torch.no_grad():
        prompts = lm.embed_prompts(lm.encode_audio(clips), ["English"] * len(clips))
    return generate(lm, prompts, [cap] * len(clips)).ids


def test_processor_gives_the_published_prompt_at_its_published_length():
    """12.05 s give 1205 frames, 150 audio tokens and 160 ids, as the published checkpoint does."""
    tokenizer = qwen_tokenizer()
    assert tokenizer.tokenize(INSTRUCTION) == PIECES
    inputs = ArkasrProcessor(ArkasrFeatureExtractor(), tokenizer)(waveform(192800))
    names = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist())
    before, after = ["<|user|>", "<|begin_of_audio|>"], ["<|end_of_audio|>", *PIECES, "<|assistant|>"]
    assert names == before + ["<|audio|>"] * 150 + after and len(names) == 160
    assert inputs["input_features"].shape == (1, 128, 1205) and inputs["input_features_mask"].sum() == 1205


@pytest.mark.parametrize("samples", SAMPLES)
def test_processor_counts_audio_tokens_as_the_model_does(lm, processor, samples):
    inputs = processor(waveform(samples))
    count = int((inputs["input_ids"] == lm.hf.config.audio_token_id).sum())
    assert count == max((samples // 160 + 1) // 2 // 4, 1)
    with torch.no_grad():
        audio = lm.hf.model.get_audio_features(inputs["input_features"], inputs["input_features_mask"]).pooler_output
    assert len(audio) == count
    assert inputs["input_features_mask"].sum() == max(samples // 160, 1)


def test_processor_pads_on_the_left_for_any_tokenizer_setting(lm):
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.padding_side = "right"
    processor = ArkasrProcessor.from_config(lm.hf.config, tokenizer)
    inputs = processor([waveform(n) for n in (3200, 16000)])
    mask, ids = inputs["attention_mask"], inputs["input_ids"]
    assert ids.shape == mask.shape and ids.dtype == mask.dtype == torch.int64
    short = processor(waveform(3200))["input_ids"][0]
    assert mask[1].all() and mask[0].tolist() == [0] * (ids.shape[1] - len(short)) + [1] * len(short)
    assert ids[0, -len(short) :].tolist() == short.tolist()
    assert (ids[0, : -len(short)] == tokenizer.pad_token_id).all()


def test_processor_puts_transcripts_where_the_student_predicts_them(lm, processor):
    clips, texts = [waveform(8000), waveform(4000, 1)], ["the sea", "\u4f60\u597d"]
    inputs = processor(clips, texts)
    with torch.no_grad():
        logits = lm.hf(**inputs).logits
        target = [lm.text_ids(text) for text in texts]
        expected = lm.transcript_states(lm.embed_prompts(lm.encode_audio(clips), ["English"] * 2), target) @ lm.head.T
    for row, ids, rows in zip(range(2), target, expected.split([len(ids) for ids in target])):
        assert inputs["input_ids"][row, -len(ids) :].tolist() == ids
        torch.testing.assert_close(logits[row, -len(ids) - 1 : -1], rows, atol=1e-4, rtol=1e-4)
    assert processor(clips[0], texts[0])["input_ids"].tolist() == processor(clips[:1], texts[:1])["input_ids"].tolist()


def test_auto_classes_give_the_transcripts_of_arkasr(lm, folder):
    """Compare AutoProcessor and AutoModelForCausalLM from a saved folder with arkasr.generate."""
    clips = [waveform(n, seed) for seed, n in enumerate([16000, 8000, 3000, 24000, 1000, 100])]
    model, processor = AutoModelForCausalLM.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    inputs = processor(audio=clips, sampling_rate=16000, return_tensors="pt")
    out = model.generate(**inputs, max_new_tokens=12, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    expected = transcripts(lm, clips, 12)
    assert [row[: len(ids)] for row, ids in zip(out.tolist(), expected)] == expected
    assert processor.batch_decode(out, skip_special_tokens=True) == [lm.text(ids) for ids in expected]
    assert len({tuple(ids) for ids in expected}) > 1 and min(map(len, expected)) < 12  # they differ, and one stops
    free = model.generate(**inputs, max_new_tokens=12, do_sample=False, suppress_tokens=None)
    assert processor.tokenizer.convert_tokens_to_ids("<|user|>") in free[:, inputs["input_ids"].shape[1] :]


def test_save_writes_the_blocked_ids_to_the_generation_config(lm, folder):
    written = GenerationConfig.from_pretrained(folder)
    assert written.suppress_tokens == lm.blocked.nonzero()[:, 0].tolist()
    assert written.eos_token_id == lm.stop_ids[0] and written.pad_token_id == lm.tokenizer.pad_token_id
    loaded = load_speech_lm(str(folder))
    assert isinstance(loaded, ArkSpeechLM) and torch.equal(loaded.blocked, lm.blocked)


def test_save_in_the_published_layout_includes_the_processor(lm, folder, tmp_path):
    lm.save(tmp_path, save_original_format=True)
    assert "whisper_config" in json.loads((tmp_path / "config.json").read_text())
    assert GenerationConfig.from_pretrained(tmp_path).suppress_tokens == lm.blocked.nonzero()[:, 0].tolist()
    (tmp_path / "processor_config.json").unlink()
    assert AutoProcessor.from_pretrained(tmp_path).to_dict() == AutoProcessor.from_pretrained(folder).to_dict()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_model_card_snippet_matches_arkasr(folder, wav, dtype):
    """The published snippet without trust_remote_code, which is not needed. Features need no cast."""
    lm = load_speech_lm(str(folder), dtype)
    processor, tokenizer = AutoProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    inputs = processor.apply_chat_template(conversation(wav), add_generation_prompt=True, return_tensors="pt")
    inputs = inputs.to("cpu")
    bad_words_ids = [[token_id] for token_id in tokenizer.all_special_ids if token_id != tokenizer.eos_token_id]
    outputs = model.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=9,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bad_words_ids=bad_words_ids,
    )
    texts = tokenizer.batch_decode(outputs[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    assert texts == [lm.text(ids) for ids in transcripts(lm, [waveform(9000, 3)], 9)]


def test_conversations_and_calls_give_the_same_inputs(processor, wav):
    clips = [waveform(9000, 3), waveform(4000, 5)]
    called = processor(clips)
    batch = [conversation(wav), conversation(clips[1].numpy())]
    for inputs in (
        processor.apply_chat_template(batch, add_generation_prompt=True),
        processor.apply_transcription_request([wav, clips[1]]),
        processor.apply_transcription_request(clips, sampling_rate=16000),
        processor.apply_transcription_request([clip.tolist() for clip in clips]),
    ):
        assert inputs.keys() == called.keys() and all(torch.equal(inputs[name], called[name]) for name in called)
    alone = processor(clips[0])
    for inputs in (
        processor.apply_transcription_request(wav),
        processor.apply_transcription_request(clips[0]),
        processor.apply_chat_template(conversation(wav), add_generation_prompt=True),
    ):
        assert all(torch.equal(inputs[name], alone[name]) for name in alone)
    ids = processor.apply_chat_template(conversation(wav), add_generation_prompt=True, return_dict=False)
    assert torch.equal(ids, alone["input_ids"])


def test_apply_chat_template_returns_text(processor, wav):
    render = processor.apply_chat_template
    assert render(conversation(wav), add_generation_prompt=True, tokenize=False) == PROMPT
    assert render([conversation(wav)], add_generation_prompt=True, tokenize=False) == [PROMPT]
    assert render(conversation(wav), tokenize=False) == PROMPT.removesuffix("<|assistant|>")
    other = render(conversation(wav, "\u8bf7\u8f6c\u5199"), add_generation_prompt=True, tokenize=False)
    assert other == PROMPT.replace(INSTRUCTION, "\u8bf7\u8f6c\u5199")
    answered = [*conversation(wav), {"role": "assistant", "content": "the sea"}]
    assert render(answered, tokenize=False) == PROMPT + "the sea<|im_end|>"
    assert torch.equal(render(answered)["input_ids"], processor(waveform(9000, 3), "the sea")["input_ids"])


def test_instruction_of_the_model_is_saved_and_used(lm, tmp_path):
    hf = copy.deepcopy(lm.hf)
    hf.config.instruction = "the lazy dog"
    other = ArkSpeechLM(hf, lm.tokenizer)
    other.save(tmp_path)
    [text] = lm.tokenizer.batch_decode(AutoProcessor.from_pretrained(tmp_path)(waveform(160))["input_ids"])
    assert text == PROMPT.replace(INSTRUCTION, "the lazy dog") == "<|audio|>".join(other.prompt_text("English"))
    (tmp_path / "processor_config.json").unlink()
    assert AutoProcessor.from_pretrained(tmp_path).instruction == "the lazy dog"


def test_processor_refuses_empty_batches_and_files(processor, wav):
    for empty in ([], ()):
        with pytest.raises(UserError, match="no clips"):
            processor(empty)
        with pytest.raises(UserError, match="no clips"):
            processor.apply_transcription_request(empty)
    for files in (wav, [wav]):
        with pytest.raises(UserError, match=f"{wav}: expected waveforms.*apply_transcription_request"):
            processor(files)


def test_processor_round_trip(processor, folder, tmp_path):
    processor.save_pretrained(tmp_path / "alone")
    for path in (tmp_path / "alone", folder):
        for load in (AutoProcessor.from_pretrained, ArkasrProcessor.from_pretrained):
            loaded = load(path)
            assert type(loaded) is ArkasrProcessor and loaded.to_dict() == processor.to_dict()
            assert loaded.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    assert type(extractor) is ArkasrFeatureExtractor and extractor.feature_size == 16


SIBLING = {
    "processor_class": "ArkasrProcessor",
    "merge_factor": 4,
    "audio_token": "<|audio|>",
    "audio_dtype": "bfloat16",
    "tokenizer_config": {"padding_side": "left", "model_max_length": 8192},
}
REMOTE = {"auto_map": {"AutoProcessor": "processing_arkasr.ArkasrProcessor"}}
WHISPER = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 16, "chunk_length": 30}


@pytest.mark.parametrize("written", [None, SIBLING, SIBLING | REMOTE])
@pytest.mark.parametrize("extractor", [None, WHISPER, WHISPER | {"processor_class": "ArkasrProcessor"} | REMOTE])
def test_processor_loads_published_folders_without_their_code(processor, folder, tmp_path, written, extractor):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "processing_arkasr.py").write_text("raise SystemExit('the code of the folder was run')")
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}<|user|>\n{% endfor %}")
    for name, content in (("processor_config.json", written), ("preprocessor_config.json", extractor)):
        if content is not None:
            (tmp_path / name).write_text(json.dumps(content))
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is ArkasrProcessor and loaded.to_dict() == processor.to_dict()
    clip = waveform(4000)
    assert torch.equal(loaded(clip)["input_ids"], processor(clip)["input_ids"])
    loaded.save_pretrained(tmp_path / "again")
    template = (tmp_path / "again" / "chat_template.jinja").read_text()
    messages = conversation("a.wav")
    text = loaded.tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    assert text == PROMPT


@pytest.mark.slow
def test_one_import_registers_all_auto_classes(folder):
    """Without registration AutoProcessor would return the tokenizer without an error."""
    program = (
        "from arkasr import ArkasrConfig; import transformers as t\n"
        f"loaded = [c.from_pretrained({str(folder)!r}) for c in (t.AutoProcessor, t.AutoModelForCausalLM)]\n"
        "print([type(m).__name__ for m in loaded])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["['ArkasrProcessor',", "'ArkasrForConditionalGeneration']"]


def test_processor_refuses_settings_of_another_model(lm):
    for changes in ({"sampling_rate": 8000}, {"hop_length": 320}, {"n_fft": 512}):
        with pytest.raises(UserError, match=rf"must be \(16000, 160, 400\).*{next(iter(changes.values()))}"):
            ArkasrFeatureExtractor(16, **changes)
    with pytest.raises(UserError, match="lacks .*<|audio|>.*<|user|>"):
        ArkasrProcessor(ArkasrFeatureExtractor(16), Qwen2Tokenizer(vocab={"a": 0}, merges=[]))
    with pytest.raises(UserError, match=r"audio_token must be '<\|audio\|>'.*got '<\|user\|>'"):
        ArkasrProcessor(ArkasrFeatureExtractor(16), student_tokenizer(), audio_token="<|user|>")


BAD = {
    "no samples": torch.zeros(0),
    "NaN or infinite": torch.tensor([0.1, float("nan"), 0.2]),
    r"shape \[8, 4000\]": torch.zeros(8, 4000),
    "int16": torch.ones(400, dtype=torch.int16),
}


@pytest.mark.parametrize("message", BAD)
def test_processor_names_an_invalid_waveform(processor, wav, message):
    good, bad = waveform(4000), BAD[message]
    with pytest.raises(UserError, match=f"clip 1 of 2.*{message}"):
        processor([good, bad])
    with pytest.raises(UserError, match=f"clip 1 of 2.*{message}"):
        processor.apply_chat_template([conversation(wav), conversation(bad.numpy())])
    with pytest.raises(UserError, match=f"clip 0 of 1.*{message}"):
        processor(bad)


def test_processor_refuses_other_sampling_rates(processor):
    message = "44100.*16000 Hz.*resample"
    with pytest.raises(UserError, match=message):
        processor(waveform(4000), sampling_rate=44100)
    with pytest.raises(UserError, match=message):
        processor.apply_transcription_request(waveform(4000), sampling_rate=44100)
    with pytest.raises(UserError, match=message):
        processor.apply_chat_template(conversation(waveform(4000)), sampling_rate=44100)


def test_processor_resamples_files_and_names_invalid_ones(processor, tmp_path):
    seconds, paths = 0.5, {}
    for rate in (16000, 44100):
        tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)
        paths[rate] = str(tmp_path / f"{rate}.wav")
        soundfile.write(paths[rate], tone, rate)
    low, high = (processor.apply_transcription_request(paths[rate]) for rate in (16000, 44100))
    assert torch.equal(low["input_ids"], high["input_ids"])
    loud = low["input_features"] > low["input_features"].max() - 0.5
    torch.testing.assert_close(low["input_features"][loud], high["input_features"][loud], atol=0.05, rtol=0)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.1, np.nan]), 16000, subtype="FLOAT")
    (tmp_path / "notes.wav").write_text("no sound")
    for name, message in {
        "empty": "no samples",
        "nan": "NaN",
        "notes": "",
        "absent": "",
    }.items():
        with pytest.raises(UserError, match=f"{tmp_path / name}.wav.*{message}"):
            processor.apply_transcription_request([paths[16000], str(tmp_path / f"{name}.wav")])


def test_processor_refuses_conversations_that_do_not_fit_the_prompt(processor, wav, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between attempts to read an address
    for tokenize in (True, False):
        with pytest.raises(UserError, match="role must be one of system, user, assistant.*'tool'"):
            processor.apply_chat_template([{"role": "tool", "content": "a"}, *conversation(wav)], tokenize=tokenize)
    with pytest.raises(UserError, match="2 audio parts"):
        processor.apply_chat_template([*conversation(wav), *conversation(wav)])
    with pytest.raises(UserError, match="0 audio parts"):
        processor.apply_chat_template([conversation(wav), [{"role": "user", "content": "say <|audio|>"}]])
    with pytest.raises(UserError, match="no clips"):
        processor.apply_chat_template([])
    with pytest.raises(UserError, match=r"2 x <\|audio\|>"):
        processor.apply_chat_template(conversation(wav, "say <|audio|>"))
    with pytest.raises(UserError, match=r"\['href', 'type'\].*`path`"):
        processor.apply_chat_template([{"role": "user", "content": [{"type": "audio", "href": "b.wav"}]}])
    with pytest.raises(UserError, match="http://127.0.0.1:1/b.wav: cannot be read as audio.*give its path"):
        turn = {"type": "audio", "url": "http://127.0.0.1:1/b.wav"}
        processor.apply_chat_template([{"role": "user", "content": [turn]}])
    with pytest.raises(UserError, match="2 transcripts or prompts for 1 clips"):
        processor(waveform(4000), ["a", "b"])
    with pytest.raises(UserError, match=r"2 x <\|audio\|>"):
        processor(waveform(4000), "the <|audio|><|audio|> sea")


@pytest.mark.parametrize("clip", [torch.zeros(16000), torch.zeros(1), waveform(1), waveform(1599), torch.zeros(800)])
def test_short_and_silent_clips_are_transcribed(lm, processor, clip):
    inputs = processor(clip)
    assert inputs["input_features"].isfinite().all()
    with torch.no_grad():
        assert lm.hf(**inputs).logits.isfinite().all()
    [ids] = transcripts(lm, [clip], 8)
    assert 1 <= len(ids) <= 8 and not lm.blocked[ids].any()
    out = lm.hf.generate(**inputs, max_new_tokens=8, suppress_tokens=lm.blocked.nonzero()[:, 0].tolist())
    assert out[0, inputs["input_ids"].shape[1] :].tolist()[: len(ids)] == ids


def test_processor_names_an_absent_file(processor, tmp_path):
    with pytest.raises(UserError, match=r"gone\.wav: file not found"):
        processor.apply_transcription_request(tmp_path / "gone.wav")
