"""Reading and writing YAML: booleans, unreadable files, and any plain values."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkasr.config.yaml_io import parse_yaml, read_yaml, to_yaml
from arkasr.errors import UserError


def test_parse_yaml_reads_only_true_and_false_as_booleans():
    text = "[no, yes, on, off, True, y, 010, 1:30, 2026-01-01, 0x10, ~, null, true, false, 7, .5, 1., 1e3]"
    words = ["no", "yes", "on", "off", "True", "y", "010", "1:30", "2026-01-01", "0x10"]
    assert parse_yaml(text, "here") == [*words, None, None, True, False, 7, 0.5, 1.0, 1000.0]


def test_read_yaml_refuses_unreadable_files(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"run: \xe9")
    for path, expected in (
        (tmp_path / "none.yaml", "cannot be read"),
        (tmp_path, "cannot be read"),
        (tmp_path / "latin.yaml", "not UTF-8"),
    ):
        with pytest.raises(UserError, match=expected) as caught:
            read_yaml(path)
        assert str(path) in str(caught.value)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_to_yaml_round_trips_any_plain_values(values):
    back = parse_yaml(to_yaml(values), "here")
    assert back == values and repr(back) == repr(values)
