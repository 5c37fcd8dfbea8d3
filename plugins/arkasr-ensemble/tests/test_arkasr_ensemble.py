"""The ensemble passes the plugin check, and its probabilities are the mean of its members'."""

from __future__ import annotations

import pytest
import torch

import arkasr
from arkasr import UserError
from arkasr.testing import check_teacher, create, tiny_student, tiny_teacher, waveform

CLIPS = [waveform(9000), waveform(5000, seed=1)]
LANGUAGES = ["English", "Chinese"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Save two recognisers with one vocabulary, and one with another."""
    root = tmp_path_factory.mktemp("members")
    for name, lm in {"a": tiny_teacher(1), "b": tiny_teacher(2), "other": tiny_student()}.items():
        lm.save(root / name)
    return {name: str(root / name) for name in ("a", "b", "other")}


def ensemble(*paths, **options):
    options = {"paths": list(paths), "dtype": "float32", "max_new_tokens": 6} | options
    return create("teacher", "ensemble", options, device="cpu")


def test_ensemble_passes_plugin_check(folders):
    check_teacher(ensemble(folders["a"], folders["b"], weights=[1.0, 3.0]))


def scored(teacher, ids):
    view = teacher.score(CLIPS, LANGUAGES, ids)
    return view.logprobs_at(torch.arange(view.vocab_size).expand(sum(map(len, ids)), -1)).double()


@pytest.mark.parametrize("weights", [[], [1.0, 3.0]])
def test_ensemble_probabilities_are_weighted_mean(folders, weights):
    both = ensemble(folders["a"], folders["b"], weights=weights)
    ids = [both.tokenizer.encode(text, add_special_tokens=False) for text in ("the sea", "one")]
    a, b = (scored(ensemble(folders[name]), ids).exp() for name in "ab")
    share = weights[0] / sum(weights) if weights else 0.5
    torch.testing.assert_close(scored(both, ids).exp(), share * a + (1 - share) * b, atol=1e-6, rtol=1e-4)
    assert (a - b).abs().max() > 0.01


def test_transcribe_keeps_most_probable_transcript(folders):
    both, swapped = (ensemble(*(folders[name] for name in names)) for names in ("ab", "ba"))
    expected = []
    for clip, language in zip(CLIPS, LANGUAGES):
        drafts = []
        for lm in both.members:
            prompts = lm.embed_prompts(lm.encode_audio([clip]), [language])
            (ids,) = arkasr.generate(lm, prompts, [both.options.max_new_tokens]).ids
            view = both.score([clip], [language], [ids])
            drafts.append((float(view.logprobs_at(torch.tensor(ids)[:, None]).sum()), lm.text(ids)))
        assert drafts[0][1] != drafts[1][1]
        expected.append(max(drafts)[1])
    assert both.transcribe(CLIPS, LANGUAGES) == swapped.transcribe(CLIPS, LANGUAGES) == expected


def test_members_with_different_vocabularies_raise(folders):
    with pytest.raises(UserError, match="other and .*/a have different vocabularies .* remove one"):
        ensemble(folders["a"], folders["other"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"paths": []}, "paths is empty"),
        ({"weights": [1.0, 2.0]}, "weights has 2 numbers for 1 paths"),
        ({"weights": [0.0]}, "must be positive"),
        ({"weights": [float("nan")]}, "must be positive"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"wieghts": [1.0]}, "wieghts.*did you mean weights"),
        ({"paths": "a"}, "paths must be a list"),
    ],
)
def test_invalid_options_raise(folders, options, message):
    with pytest.raises(UserError, match=message):
        ensemble(folders["a"], **options)
