"""Conformance checks for plugins, in anybody's test-suite: a check returns None, or raises an AssertionError that says
in one sentence what the plugin does and what its protocol promises.

    from arkasr.testing import check_loss, create

    def test_the_loss_keeps_its_promises():
        check_loss(create("loss", "my_loss", {"temperature": 2.0}))

`create(kind, name, options, **context)` makes a plugin as a run does, by its registered name and with its options
checked. kind: "teacher" (context: `device`), "token_mapper" (context: `student` and `teacher`) or "loss". For tests of
a plugin's numbers there are tiny models with their tokenizers (`tiny_student`, `tiny_teacher`), clips (`waveform`), and
a student, teacher and support as a loss gets them (`make_case`, `TableView`).
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
