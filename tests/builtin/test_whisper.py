"""The Whisper teacher, compared with the feature extractor, tokenizer, model and generation of transformers."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from mapper_cases import drive
from safetensors.torch import load_file, save_file
from tiny import student, waveform
from tiny_teachers import STATES, save_whisper, whisper_tokenizer
from transformers import WhisperFeatureExtractor

from arkasr.builtin.teachers.windows import split_at_quiet
from arkasr.errors import UserError
from arkasr.plugins import registry
from arkasr.testing import check_teacher

WINDOW = 2 * STATES * 160  # samples
LIMIT = 40  # decoder positions


def create(folder, **options):
    options = {"path": str(folder), "dtype": "float32", "max_new_tokens": 8} | options
    return registry.create("teacher", "whisper", options, device="cpu")


def reference_logprobs(model, clip, language, ids, multilingual):
    """Return log-probabilities [len(ids), V] of one clip, computed with transformers only."""
    tokenizer = copy.deepcopy(whisper_tokenizer())
    if multilingual:
        tokenizer.set_prefix_tokens(language=language.lower(), task="transcribe", predict_timestamps=False)
    prefix = tokenizer.prefix_tokens
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=WINDOW // 16000)
    features = extractor(clip.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    with torch.no_grad():
        logits = model(features, decoder_input_ids=torch.tensor([[*prefix, *ids[:-1]]])).logits[0]
    return logits[len(prefix) - 1 :].log_softmax(-1)


@pytest.fixture(scope="module", params=[True, False], ids=["multilingual", "English only"])
def saved(request, tmp_path_factory):
    """Return a Whisper, the folder where it is saved, and whether it is multilingual."""
    folder = tmp_path_factory.mktemp("whisper")
    return save_whisper(folder, 3, request.param), folder, request.param


def test_whisper_passes_plugin_check(saved):
    check_teacher(create(saved[1]))
    check_teacher(create(saved[1], dtype="bfloat16"), tolerance=0.5)


def test_whisper_scores_match_transformers(saved):
    model, folder, multilingual = saved
    whisper, texts = create(folder), [" the sea", "", " one two three", " hello"]
    clips = [waveform(n, seed) for seed, n in enumerate([16000, 1, WINDOW, 9001])]
    languages = ["English", "Chinese", "English", "chinese"] if multilingual else ["English"] * 4
    ids = [whisper.tokenizer.encode(text, add_special_tokens=False) + whisper.stop_ids for text in texts]
    ids[2].pop()  # without a stop token
    view = whisper.score(clips, languages, ids)
    expected = torch.cat([reference_logprobs(model, *case, multilingual) for case in zip(clips, languages, ids)])
    actual = view.logprobs_at(torch.arange(view.vocab_size).expand(sum(map(len, ids)), -1))
    assert expected.std() > 0.1 and actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-5)


def test_whisper_scores_depend_on_language(tmp_path):
    save_whisper(tmp_path)
    whisper = create(tmp_path)
    views = [whisper.score([waveform(9000)], [language], [[5, 6]]) for language in ("English", "Chinese")]
    assert (views[0].logprobs() - views[1].logprobs()).abs().max() > 0.01


def test_whisper_transcripts_match_transformers_generation(saved):
    """Both suppress the tokens that the checkpoint names. Special tokens are suppressed here in addition."""
    model, folder, multilingual = saved
    whisper = create(folder, max_new_tokens=12)
    clips = [waveform(n, seed) for seed, n in enumerate([16000, 4000, WINDOW])]
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=WINDOW // 16000)
    features = extractor([c.numpy() for c in clips], sampling_rate=16000, return_tensors="pt").input_features
    generation = copy.deepcopy(model.generation_config)
    stop, length = whisper.stop_ids[0], len(whisper.tokenizer)
    added = sorted({*whisper.tokenizer.added_tokens_decoder, *range(length, length + 5)} - {stop})
    generation.suppress_tokens = [*generation.suppress_tokens, *added]
    language = {"language": "english", "task": "transcribe"} if multilingual else {}
    generated = model.generate(features, generation_config=generation, **language, max_new_tokens=12, do_sample=False)
    expected = [whisper.tokenizer.decode(row, skip_special_tokens=True).strip() for row in generated]
    assert whisper.transcribe(clips, ["English"] * 3) == expected
    assert any(expected)


def test_whisper_transcript_ends_at_stop(tmp_path):
    model = save_whisper(tmp_path, 1)
    stop = model.config.eos_token_id
    with torch.no_grad():
        model.proj_out.weight[stop] = 1.2 * model.proj_out.weight[128]  # a token with a high score
    model.save_pretrained(tmp_path)
    whisper = create(tmp_path, max_new_tokens=30, tokens_per_second=0)
    clips = [waveform(n, n % 7) for n in (16000, 4000, 9000, 30000)]
    with torch.no_grad():
        written = whisper._greedy(whisper.encode(clips), [whisper.prompt("English")] * 4, [30] * 4)
    assert any(stop in row for row in written) and not any(whisper.blocked[row].any() for row in written)
    assert all(row.count(stop) == (row[-1] == stop) and row[0] != stop for row in written)
    texts = whisper.transcribe(clips, ["English"] * 4)
    for row, text in zip(written, texts, strict=True):
        assert text == whisper.tokenizer.decode([i for i in row if i != stop]).strip()
        assert text.stopped == (row[-1] == stop) and text.num_tokens == len(row)
        assert text.stopped or len(row) == 30
    assert {text.stopped for text in texts} == {True, False}
    assert whisper.transcribe(clips[1:2], ["English"]) == texts[1:2]


def test_whisper_accepts_transcripts_up_to_decoder_length(tmp_path):
    save_whisper(tmp_path)
    whisper = create(tmp_path, max_new_tokens=500, tokens_per_second=0)
    longest = LIMIT - 4 + 1
    assert whisper.transcribe([waveform(8000)], ["English"])[0].num_tokens <= longest
    assert len(whisper.score([waveform(8000)], ["English"], [[5] * longest]).entropy()) == longest
    with pytest.raises(UserError, match=f"a transcript has {longest + 1} tokens, but .* at most {longest};"):
        whisper.score([waveform(8000)], ["English"], [[5] * (longest + 1)])


def test_whisper_rejects_score_of_clip_longer_than_window(tmp_path):
    save_whisper(tmp_path)
    with pytest.raises(UserError, match=r"a clip has 2.00 s, but .* at most 2 s;.*data.max_clip_seconds"):
        create(tmp_path).score([waveform(100), waveform(WINDOW + 1)], ["English"] * 2, [[5]] * 2)


@pytest.mark.parametrize("language", ["English", "Chinese"])
def test_whisper_transcribes_longer_clips_in_windows(tmp_path, language):
    save_whisper(tmp_path, 3)
    whisper, long, short = create(tmp_path), waveform(3 * WINDOW - 5, 2), waveform(9000, 1)
    parts = split_at_quiet(long, WINDOW)
    expected = [whisper.transcribe([part], [language])[0] for part in parts]
    texts = whisper.transcribe([short, long, short], [language] * 3)
    assert len(parts) == 4 and any(expected)
    assert texts[1] == ("" if language == "Chinese" else " ").join(text for text in expected if text)
    assert texts[1].num_tokens == sum(text.num_tokens for text in expected)
    assert texts[0] == texts[2] == whisper.transcribe([short], [language])[0]


def test_whisper_caps_tokens_by_audio_length(tmp_path):
    save_whisper(tmp_path, 3)
    whisper = create(tmp_path, max_new_tokens=30, tokens_per_second=4)
    texts = whisper.transcribe([waveform(4000), waveform(16000)], ["English"] * 2)
    assert [text.num_tokens for text in texts if not text.stopped] == [3, 6]


@pytest.mark.parametrize("language", ["Klingon", "German", ""])
def test_whisper_rejects_unknown_language(saved, language):
    _, folder, multilingual = saved
    known = "English, Chinese.*" if multilingual else "English"
    with pytest.raises(UserError, match=f"language '{language}': {folder} supports {known}; set one"):
        create(folder).score([waveform(800)], [language], [[5]])


def test_english_whisper_rejects_other_languages(tmp_path):
    save_whisper(tmp_path, multilingual=False)
    with pytest.raises(UserError, match="language 'Chinese'"):
        create(tmp_path).transcribe([waveform(800)], ["Chinese"])


def test_whisper_rejects_tokenizer_without_prompt_tokens(tmp_path):
    save_whisper(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace("<|notimestamps|>", "<|other|>"))
    with pytest.raises(UserError, match=f"{tmp_path}: the tokenizer lacks <.notimestamps.>"):
        create(tmp_path)


def test_whisper_rejects_checkpoint_with_missing_tensor(tmp_path):
    save_whisper(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    del state["model.decoder.layers.1.fc1.bias"]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"{tmp_path}.*decoder.layers.1.fc1.bias"):
        create(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"dtype": "float23"}, "float23"), ({"path": "/no/such"}, "/no/such: no config.json")],
)
def test_whisper_rejects_invalid_options(tmp_path, options, message):
    save_whisper(tmp_path)
    with pytest.raises(UserError, match=message):
        create(tmp_path, **options)


def test_whisper_rejects_other_model_type(tmp_path):
    save_whisper(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "bart"}))
    with pytest.raises(UserError, match=f"{tmp_path}: model_type 'bart' in config.json is not one of whisper"):
        create(tmp_path)


@pytest.mark.parametrize("clip", [torch.zeros(0), torch.full((900,), torch.nan), torch.zeros(2, 900)])
def test_whisper_rejects_invalid_clip(clip, tmp_path):
    save_whisper(tmp_path)
    with pytest.raises(UserError, match="clip 1 of 2"):
        create(tmp_path).score([waveform(900), clip], ["English"] * 2, [[5]] * 2)


def test_whisper_encoder_matches_transformers_features(tmp_path):
    """The features, with padding to the window, equal those of WhisperFeatureExtractor."""
    model = save_whisper(tmp_path)
    whisper, clip = create(tmp_path), waveform(12345)
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=WINDOW // 16000)
    features = extractor(np.asarray(clip), sampling_rate=16000, return_tensors="pt").input_features
    with torch.no_grad():
        expected = model.model.encoder(features).last_hidden_state
        torch.testing.assert_close(whisper.encode([clip]), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("mapper", "options"), [("shared_strings", {}), ("byte_offsets", {"min_mapped_mass": 0.0})], ids=["shared", "bytes"]
)
def test_student_with_other_vocabulary_learns_from_whisper(saved, mapper, options):
    drive(mapper, student(10), create(saved[1]), [waveform(n, n % 7) for n in (16000, 4000, 9000)], options)


def test_listing_plugins_does_not_import_torch():
    code = "import sys; from arkasr.plugins.registry import listing; rows = listing(); "
    code += "assert 'torch' not in sys.modules; "
    code += "print(sorted(r['name'] for r in rows if r['kind'] == 'teacher' and r['distribution'] == 'arkasr'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"arkasr", "glmasr", "qwen3_asr", "whisper"} <= set(eval(done.stdout))


@pytest.mark.slow
def test_whisper_sets_control_tokens_to_probability_0_on_request(saved):
    plain, masking = create(saved[1]), create(saved[1], mask_control_tokens=True)
    clips, ids = [waveform(9000, 0)], [[5, 9, plain.stop_ids[0]]]
    whole, masked = (t.score(clips, ["English"], ids).logprobs() for t in (plain, masking))
    control = [i for i in plain.tokenizer.added_tokens_decoder if i != plain.stop_ids[0]]
    others = [i for i in range(whole.shape[1]) if i not in control]
    assert len(control) >= 4 and masked[:, control].isneginf().all()
    torch.testing.assert_close(masked[:, others], whole[:, others].log_softmax(-1), rtol=1e-5, atol=1e-5)
