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


def sentence(text: str) -> str:
    with pytest.raises(UserError) as caught:
        parse_yaml(text, "here")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    return str(caught.value)


def test_parse_yaml_reads_aliases_but_bounds_their_expansion():
    assert parse_yaml("a: &x {b: 1}\nc: [*x, *x]", "here") == {"a": {"b": 1}, "c": [{"b": 1}, {"b": 1}]}
    tenfold = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    assert "expands to more than 20000 values; remove aliases" in sentence("a0: &a0 [x, x]\n" + tenfold)
    keys = "".join(f"a{i}: &a{i} {{b: *a{i - 1}, c: *a{i - 1}}}\n" for i in range(1, 60))
    assert "expands to more than 20000 values" in sentence("a0: &a0 {x: 1}\n" + keys)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: " + "[" * 5000, "here, line 1: not valid YAML: nested too deeply; at most 50 levels are allowed"),
        ("\n".join(" " * i + "-" for i in range(60)), "nested too deeply"),
        ("a: &x [*x]", "here: not valid YAML: an alias inside its own anchor; remove it"),
        ("a: " + "9" * 5000, "here, line 1: a is too large: a number of 5000 digits"),
        ("b: {a: 1e400}", "here, line 1: b.a is too large: 1e400; write .inf for no limit"),
        ("a: -1e400", "a is too large: -1e400"),
        ("a: !!bool maybe", "here, line 1: a is not valid YAML: 'maybe' is not of type bool; correct it"),
        ("a: !!int 0x", "a is not valid YAML: '0x' is not of type int"),
        ("a: !!float ''", "a is not valid YAML: '' is not of type float"),
        ("a: !!seq x", "unknown tag tag:yaml.org,2002:seq"),
        ("a: !!map [1]", "unknown tag tag:yaml.org,2002:map"),
        (
            "a: 1\nb:\n\t- 1",
            "line 3: not valid YAML: found character '\\t' that cannot start any token; indent with",
        ),
        ("? {a: " + "x" * 500 + "}\n: 1", "a key must be text, got {'a': 'xxx"),
        ("a: '\ud800'", "unacceptable character #xd800"),
    ],
)
def test_parse_yaml_refuses_in_one_sentence(text, expected):
    assert expected in sentence(text)


def test_read_yaml_refuses_large_files_and_skips_a_byte_order_mark(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text("a: 1\n" + "# comment\n" * 30_000)
    with pytest.raises(UserError, match="has more than 262144 bytes, which no configuration needs; check the path"):
        read_yaml(path)
    path.write_bytes(b"\xef\xbb\xbfseed: 1\n")
    assert read_yaml(path) == {"seed": 1}
    path.write_bytes("seed: 1\n".encode("utf-16"))
    with pytest.raises(UserError, match="is not UTF-8 text"):
        read_yaml(path)
