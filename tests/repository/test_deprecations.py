"""Training, labelling, decoding, scoring and export make no deprecated call of ours."""

from __future__ import annotations

import traceback
import warnings
from pathlib import Path

import pytest
from torch import nn
from transformers.utils.deprecation import deprecate_kwarg

import arkasr
from arkasr import cli

OURS = Path(arkasr.__file__).parent
# frames between a deprecated call and its warning: torch's module call, and the decorators of transformers
BETWEEN = (
    "/warnings.py",
    "torch/nn/modules/",
    "transformers/utils/",
    "contextlib.py",
    "functools.py",
    "typing_extensions.py",
)
DEPRECATED = (FutureWarning, DeprecationWarning, PendingDeprecationWarning)


class Recorder:
    """Records the deprecation warnings whose call was made by a module of ours."""

    def __init__(self):
        self.found: list[str] = []

    def __call__(self, message, category, filename, lineno, file=None, line=None):
        """Replace `warnings.showwarning`."""
        frames = [f for f in traceback.extract_stack()[:-1] if not any(part in f.filename for part in BETWEEN)]
        caller = frames[-1]
        if issubclass(category, DEPRECATED) and OURS in Path(caller.filename).parents:
            self.found.append(f"{caller.filename}:{caller.lineno}: {message}")


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", recorder)
        yield recorder


@pytest.mark.slow
def test_stages_make_no_deprecated_call(recorder, conf, datadir, tmp_path):
    folders = ["--expdir", str(tmp_path), "--datadir", str(datadir)]
    steps = ["train.steps=2", "train.eval_every=2", "train.save_every=2"]
    for run in ("teacher", "base"):
        assert cli.main(["train", str(conf), "--run", run, *folders, *steps]) == 0
    assert cli.main(["label", str(conf), *folders]) == 0
    assert cli.main(["train", str(conf), "--run", "base_opd", *folders, *steps]) == 0
    runs = ["--runs", "teacher", "base", "base_opd"]
    assert cli.main(["decode", *folders, *runs]) == 0
    assert cli.main(["score", *folders, *runs]) == 0
    assert cli.main(["export", *folders, "--runs", "base_opd"]) == 0
    assert recorder.found == []


class Decoder(nn.Module):
    """A module that warns as transformers' modules do."""

    @deprecate_kwarg("past_key_values", "99.0.0", new_name="cache")
    def forward(self, cache):
        return cache


def test_recorder_sees_deprecated_keyword_behind_a_module_call(recorder):
    code = compile("decoder(past_key_values=1)", str(OURS / "caller.py"), "exec")
    exec(code, {"decoder": Decoder()})
    assert len(recorder.found) == 1 and "caller.py:1: `past_key_values` is deprecated" in recorder.found[0]


def test_recorder_ignores_deprecated_calls_of_libraries(recorder):
    code = compile(
        "import warnings\nwarnings.warn('old', DeprecationWarning)", "/site-packages/library/inner.py", "exec"
    )
    exec(code, {})
    assert recorder.found == []
