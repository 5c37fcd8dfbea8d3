"""Training, labelling, decoding, scoring and export make no deprecated call of their own."""

from __future__ import annotations

import warnings

import pytest
from own_warnings import PACKAGE
from torch import nn
from transformers.utils.deprecation import deprecate_kwarg

from arkasr import cli

DEPRECATED = (FutureWarning, DeprecationWarning, PendingDeprecationWarning)


@pytest.mark.slow
def test_stages_make_no_deprecated_call(own_warnings, conf, datadir, tmp_path):
    folders = ["--expdir", str(tmp_path), "--datadir", str(datadir)]
    steps = ["train.steps=2", "train.eval_every=2", "train.save_every=2"]
    learns_to_stop = ["train.steps=60", "train.eval_every=0", "train.save_every=0"]
    assert cli.main(["train", str(conf), "--run", "teacher", *folders, *learns_to_stop]) == 0
    assert cli.main(["train", str(conf), "--run", "base", *folders, *steps]) == 0
    assert cli.main(["label", str(conf), *folders, "teacher.options.max_new_tokens=40"]) == 0
    assert cli.main(["train", str(conf), "--run", "base_opd", *folders, *steps]) == 0
    runs = ["--runs", "teacher", "base", "base_opd"]
    assert cli.main(["decode", *folders, *runs]) == 0
    assert cli.main(["score", *folders, *runs]) == 0
    assert cli.main(["export", *folders, "--runs", "base_opd"]) == 0
    assert [text for category, text in own_warnings.found if issubclass(category, DEPRECATED)] == []


class Decoder(nn.Module):
    """A module that warns as transformers' modules do."""

    @deprecate_kwarg("past_key_values", "99.0.0", new_name="cache")
    def forward(self, cache):
        return cache


def test_own_warnings_sees_deprecated_keyword_behind_a_module_call(own_warnings):
    code = compile("decoder(past_key_values=1)", str(PACKAGE / "caller.py"), "exec")
    exec(code, {"decoder": Decoder()})
    ((category, text),) = own_warnings.found
    assert category is FutureWarning and "caller.py:1: `past_key_values` is deprecated" in text


def test_own_warnings_ignores_deprecated_calls_of_libraries(own_warnings):
    text = "warnings.warn('old', DeprecationWarning)"
    exec(compile(text, "/site-packages/library/inner.py", "exec"), {"warnings": warnings})
    assert own_warnings.found == []
    exec(compile(text, str(PACKAGE / "caller.py"), "exec"), {"warnings": warnings})
    assert len(own_warnings.found) == 1
