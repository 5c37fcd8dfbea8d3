"""The Whisper teacher against transformers' own feature extractor, tokenizer, model and generation."""

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

from arkasr.errors import UserError
from arkasr.plugins import registry
from arkasr.testing import check_teacher

WINDOW = 2 * STATES * 160  # samples
LIMIT = 40  # decoder positions


def create(folder, **options):
    given = {"path": str(folder), "dtype": "float32", "max_new_tokens": 8} | options
    return registry.create("teacher", "whisper", given, device="cpu")


def official(model, clip, language, ids, multilingual):
    """Log-probabilities [len(ids), V] of one clip through transformers alone."""
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
    """A Whisper, the folder of it, and whether it is multilingual."""
    folder = tmp_path_factory.mktemp("whisper")
    return save_whisper(folder, 3, request.param), folder, request.param


def test_it_keeps_the_promises(saved):
    check_teacher(create(saved[1]))
    check_teacher(create(saved[1], dtype="bfloat16"), tolerance=0.5)


def test_scores_are_those_of_transformers_alone(saved):
    model, folder, multilingual = saved
    made, texts = create(folder), [" the sea", "", " one two three", " hello"]
    clips = [waveform(n, seed) for seed, n in enumerate([16000, 1, WINDOW, 9001])]
    languages = ["English", "Chinese", "English", "chinese"] if multilingual else ["English"] * 4
    ids = [made.tokenizer.encode(text, add_special_tokens=False) + made.stop_ids for text in texts]
    ids[2].pop()  # cut
    view = made.score(clips, languages, ids)
    expected = torch.cat([official(model, *case, multilingual) for case in zip(clips, languages, ids)])
    got = view.logprobs_at(torch.arange(view.vocab_size).expand(sum(map(len, ids)), -1))
    assert expected.std() > 0.1 and got.shape == expected.shape
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-5)


def test_the_language_is_heard(tmp_path):
    save_whisper(tmp_path)
    made = create(tmp_path)
    views = [made.score([waveform(9000)], [language], [[5, 6]]) for language in ("English", "Chinese")]
    assert (views[0].logprobs() - views[1].logprobs()).abs().max() > 0.01


def test_transcripts_are_those_of_transformers_own_generation(saved):
    """Its own loop, without a cap by audio, leaves out what the checkpoint suppresses; so do specials here."""
    model, folder, multilingual = saved
    made = create(folder, max_new_tokens=12)
    clips = [waveform(n, seed) for seed, n in enumerate([16000, 4000, WINDOW])]
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=WINDOW // 16000)
    features = extractor([c.numpy() for c in clips], sampling_rate=16000, return_tensors="pt").input_features
    given = copy.deepcopy(model.generation_config)
    stop, length = made.stop_ids[0], len(made.tokenizer)
    added = sorted({*made.tokenizer.added_tokens_decoder, *range(length, length + 5)} - {stop})
    given.suppress_tokens = [*given.suppress_tokens, *added]
    asked = {"language": "english", "task": "transcribe"} if multilingual else {}
    made_ids = model.generate(features, generation_config=given, **asked, max_new_tokens=12, do_sample=False)
    expected = [made.tokenizer.decode(row, skip_special_tokens=True).strip() for row in made_ids]
    assert made.transcribe(clips, ["English"] * 3) == expected
    assert any(expected)


def test_a_transcript_ends_at_the_stop(tmp_path):
    model = save_whisper(tmp_path, 1)
    stop = model.config.eos_token_id
    with torch.no_grad():
        model.proj_out.weight[stop] = 1.2 * model.proj_out.weight[128]  # a token that it likes
    model.save_pretrained(tmp_path)
    made, clips = create(tmp_path, max_new_tokens=30), [waveform(n, n % 7) for n in (16000, 4000, 9000, 30000)]
    with torch.no_grad():
        written = made._greedy(made.encode(clips), [made.prompt("English")] * 4)
    assert (written == stop).any() and not made.blocked[written].any() and not (written[:, 0] == stop).any()
    texts = made.transcribe(clips, ["English"] * 4)
    for row, text in zip(written.tolist(), texts):
        kept = row[: row.index(stop)] if stop in row else row
        assert text == made.tokenizer.decode(kept).strip()
    assert made.transcribe(clips[1:2], ["English"]) == texts[1:2]


def test_the_longest_transcript_fills_the_decoder(tmp_path):
    save_whisper(tmp_path)
    made = create(tmp_path, max_new_tokens=500)
    with torch.no_grad():
        written = made._greedy(made.encode([waveform(8000)]), [made.prompt("English")])
    longest = LIMIT - 4 + 1
    assert written.shape[1] <= longest
    assert len(made.score([waveform(8000)], ["English"], [[5] * longest]).entropy()) == longest
    with pytest.raises(UserError, match=f"a transcript of {longest + 1} tokens is longer than the {longest} that"):
        made.score([waveform(8000)], ["English"], [[5] * (longest + 1)])


def test_a_clip_longer_than_the_window(tmp_path):
    save_whisper(tmp_path)
    made = create(tmp_path)
    for ask in (lambda clips: made.score(clips, ["English"] * 2, [[5]] * 2), lambda c: made.transcribe(c, ["English"])):
        with pytest.raises(UserError, match=r"a clip of 2.00 s is longer than the 2 s that .*data.max_clip_seconds"):
            ask([waveform(100), waveform(WINDOW + 1)])


@pytest.mark.parametrize("language", ["Klingon", "German", ""])
def test_a_language_that_it_does_not_know(saved, language):
    _, folder, multilingual = saved
    known = "English, Chinese.*" if multilingual else "English"
    with pytest.raises(UserError, match=f"language '{language}': {folder} knows {known}; name one"):
        create(folder).score([waveform(800)], [language], [[5]])


def test_only_english_is_known_to_an_english_checkpoint(tmp_path):
    save_whisper(tmp_path, multilingual=False)
    with pytest.raises(UserError, match="language 'Chinese'"):
        create(tmp_path).transcribe([waveform(800)], ["Chinese"])


def test_a_tokenizer_that_lacks_the_prompt(tmp_path):
    save_whisper(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace("<|notimestamps|>", "<|other|>"))
    with pytest.raises(UserError, match=f"{tmp_path}: the tokenizer lacks <.notimestamps.>"):
        create(tmp_path)


def test_a_checkpoint_that_lacks_a_tensor(tmp_path):
    save_whisper(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    del state["model.decoder.layers.1.fc1.bias"]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"{tmp_path}.*decoder.layers.1.fc1.bias"):
        create(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"dtype": "float23"}, "float23"), ({"path": "/no/such"}, "/no/such: no model here")],
)
def test_options_that_do_not_do(tmp_path, options, said):
    save_whisper(tmp_path)
    with pytest.raises(UserError, match=said):
        create(tmp_path, **options)


def test_a_configuration_of_another_kind(tmp_path):
    save_whisper(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "bart"}))
    with pytest.raises(UserError, match=f"{tmp_path}: model_type 'bart' in config.json is none of whisper"):
        create(tmp_path)


@pytest.mark.parametrize("clip", [torch.zeros(0), torch.full((900,), torch.nan), torch.zeros(2, 900)])
def test_a_clip_that_is_none(clip, tmp_path):
    save_whisper(tmp_path)
    with pytest.raises(UserError, match="clip 1 of 2"):
        create(tmp_path).score([waveform(900), clip], ["English"] * 2, [[5]] * 2)


def test_features_are_exact(tmp_path):
    """What the encoder hears is what WhisperFeatureExtractor makes, window and all."""
    model = save_whisper(tmp_path)
    made, clip = create(tmp_path), waveform(12345)
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=WINDOW // 16000)
    features = extractor(np.asarray(clip), sampling_rate=16000, return_tensors="pt").input_features
    with torch.no_grad():
        expected = model.model.encoder(features).last_hidden_state
        torch.testing.assert_close(made.encode([clip]), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("mapper", "options"), [("shared_strings", {}), ("byte_offsets", {"least_told": 0.0})], ids=["shared", "bytes"]
)
def test_a_student_of_another_vocabulary_learns_from_it(saved, mapper, options):
    drive(mapper, student(10), create(saved[1]), [waveform(n, n % 7) for n in (16000, 4000, 9000)], options)


def test_listing_the_plugins_imports_no_torch():
    code = "import sys; from arkasr import plugins; rows = plugins.listing(); assert 'torch' not in sys.modules; "
    code += "print(sorted(r['name'] for r in rows if r['kind'] == 'teacher' and r['distribution'] == 'arkasr'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"arkasr", "glmasr", "qwen3_asr", "whisper"} <= set(eval(done.stdout))
