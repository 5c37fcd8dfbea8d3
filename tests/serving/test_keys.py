"""The API key: where it comes from, and who passes."""

from __future__ import annotations

import pytest
from starlette.requests import HTTPConnection

from arkasr.errors import UserError
from arkasr.serving.errors import ApiError
from arkasr.serving.keys import VARIABLE, check_key, read_key
from arkasr.utils.console import printable


def connection(header: bytes | None) -> HTTPConnection:
    return HTTPConnection({"type": "http", "headers": [] if header is None else [(b"authorization", header)]})


def test_read_key_prefers_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, "from-environment")
    (tmp_path / "key").write_text("from-file\n")
    assert (read_key(str(tmp_path / "key")), read_key("")) == ("from-file", "from-environment")
    monkeypatch.delenv(VARIABLE)
    assert read_key("") == ""


@pytest.mark.parametrize("content", [b"", b"two words", "schl\u00fcssel".encode(), b"\xff\xfe", b"a\nb"])
def test_read_key_refuses_what_no_header_can_hold(tmp_path, content):
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(UserError, match="--api_key_file .*/key.* text|must hold one word") as caught:
        read_key(str(tmp_path / "key"))
    assert printable(str(caught.value)) == str(caught.value)  # nothing of it looks like a secret


def test_read_key_names_the_variable(monkeypatch):
    monkeypatch.setenv(VARIABLE, "two words")
    with pytest.raises(UserError, match=f"variable {VARIABLE} must hold one word") as caught:
        read_key("")
    assert printable(str(caught.value)) == str(caught.value)


def test_read_key_names_a_file_that_is_missing(tmp_path):
    with pytest.raises(UserError, match="none: No such file"):
        read_key(str(tmp_path / "none"))


@pytest.mark.parametrize("header", [b"Bearer right", b"bearer  right "])
def test_check_key_lets_the_right_key_pass(header):
    check_key(connection(header), "right")


@pytest.mark.parametrize(
    ("header", "what"),
    [(None, "missing"), (b"Bearer ", "missing"), (b"Bearer wrong", "wrong"), (b"Basic right", "wrong"),
     (b"Bearer right\xff", "wrong"), (b"Bearer righ", "wrong")],
)  # fmt: skip
def test_check_key_refuses_others(header, what):
    with pytest.raises(ApiError, match=what) as caught:
        check_key(connection(header), "right")
    assert caught.value.status == 401 and caught.value.headers["WWW-Authenticate"] == "Bearer"


def test_check_key_needs_none_if_there_is_none():
    check_key(connection(None), "")
