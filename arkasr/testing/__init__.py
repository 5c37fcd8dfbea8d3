"""Conformance checks for plugins, for use in any test framework.

A check returns None if the plugin conforms to its protocol in `arkasr.interfaces`. Otherwise it raises an
AssertionError with one sentence: what the plugin does, and what the protocol requires.

    from arkasr.testing import check_loss, create


    def test_my_loss_conforms():
        check_loss(create("loss", "my_loss", {"temperature": 2.0}))

- `check_teacher`, `check_token_mapper`, `check_loss`: one check per kind of plugin.
- `create(kind, name, options, **context)`: build a plugin from its registered name and check its options, as a
  training run does. `kind` is "teacher" (context: `device`), "token_mapper" (context: `student`, `teacher`) or "loss".
- `tiny_student`, `tiny_teacher`, `waveform`: small random models with tokenizers, and audio.
- `make_case`, `TableView`: a student, a teacher and a support as a loss receives them, to test its numbers.
- `count_host_reads`, `forbid_host_reads` (in `arkasr.testing.host_reads`): how often code would wait for a GPU.

May import `distributions`, `interfaces`, `model` and `plugins`.
"""

from __future__ import annotations

from arkasr.plugins.registry import create
from arkasr.testing.cases import TableView, make_case
from arkasr.testing.losses import check_loss
from arkasr.testing.mappers import check_token_mapper
from arkasr.testing.teachers import check_teacher
from arkasr.testing.tiny import tiny_student, tiny_teacher, waveform

__all__ = [
    "TableView",
    "check_loss",
    "check_teacher",
    "check_token_mapper",
    "create",
    "make_case",
    "tiny_student",
    "tiny_teacher",
    "waveform",
]
