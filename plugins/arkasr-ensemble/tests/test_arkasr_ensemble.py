"""The ensemble keeps a teacher's promises, and its numbers are the mean of its members'."""

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
    """Two recognisers with one vocabulary, and one with another."""
    root = tmp_path_factory.mktemp("members")
    for name, lm in {"a": tiny_teacher(1), "b": tiny_teacher(2), "other": tiny_student()}.items():
        lm.save(root / name)
    return {name: str(root / name) for name in ("a", "b", "other")}


def ensemble(*paths, **options):
    options = {"paths": list(paths), "dtype": "float32", "max_new_tokens": 6} | options
    return create("teacher", "ensemble", options, device="cpu")


def test_it_keeps_the_promises_of_a_teacher(folders):
    check_teacher(ensemble(folders["a"], folders["b"], weights=[1.0, 3.0]))


def scored(teacher, ids):
    view = teacher.score(CLIPS, LANGUAGES, ids)
    return view.logprobs_at(torch.arange(view.vocab_size).expand(sum(map(len, ids)), -1)).double()


@pytest.mark.parametrize("weights", [[], [1.0, 3.0]])
def test_its_probabilities_are_the_mean(folders, weights):
    both = ensemble(folders["a"], folders["b"], weights=weights)
    ids = [both.tokenizer.encode(text, add_special_tokens=False) for text in ("the sea", "one")]
    a, b = (scored(ensemble(folders[name]), ids).exp() for name in "ab")
    share = weights[0] / sum(weights) if weights else 0.5
    torch.testing.assert_close(scored(both, ids).exp(), share * a + (1 - share) * b, atol=1e-6, rtol=1e-4)
    assert (a - b).abs().max() > 0.01


def test_of_the_members_transcripts_the_most_probable_is_kept(folders):
    both, turned = (ensemble(*(folders[name] for name in names)) for names in ("ab", "ba"))
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
    assert both.transcribe(CLIPS, LANGUAGES) == turned.transcribe(CLIPS, LANGUAGES) == expected


def test_members_must_have_one_vocabulary(folders):
    with pytest.raises(UserError, match="other and .*/a have different vocabularies .* leave one out"):
        ensemble(folders["a"], folders["other"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"paths": []}, "paths is empty"),
        ({"weights": [1.0, 2.0]}, "weights has 2 numbers for 1 paths"),
        ({"weights": [0.0]}, "must be above 0"),
        ({"weights": [float("nan")]}, "must be above 0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"wieghts": [1.0]}, "wieghts.*did you mean weights"),
        ({"paths": "a"}, "paths must be a list"),
    ],
)
def test_options_are_checked(folders, options, said):
    with pytest.raises(UserError, match=said):
        ensemble(folders["a"], **options)
