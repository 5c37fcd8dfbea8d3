"""Uploads of clients that send too much, too slowly, or nothing that can be read."""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from arkasr.serving import upload
from arkasr.serving.errors import ApiError, ClientGoneError
from arkasr.serving.limits import Limits
from arkasr.serving.upload import read_form

HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="../../etc/evil.wav"\r\n\r\n'
TAIL = b'\r\n--x\r\nContent-Disposition: form-data; name="language"\r\n\r\nen\r\n--x--\r\n'
LIMITS = Limits()
FORM = "multipart/form-data; boundary=x"


class Client:
    """Sends chunks, with a wait before each. Then it is silent."""

    def __init__(self, chunks: Iterator[bytes], wait: float = 0.0, ends: bool = True):
        self.chunks, self.wait, self.ends, self.sent = chunks, wait, ends, 0

    async def receive(self) -> dict:
        await asyncio.sleep(self.wait)
        chunk = next(self.chunks, None)
        if chunk is None:
            await asyncio.sleep(60)
        self.sent += len(chunk)
        return {"type": "http.request", "body": chunk, "more_body": not (self.ends and chunk.endswith(b"--\r\n"))}


def read(client: Client, limits: Limits = LIMITS, content_type: str = FORM, length: str = "", use: Callable = dict):
    headers = [(b"content-type", content_type.encode())] + ([(b"content-length", length.encode())] if length else [])

    async def main():
        form = await read_form({"type": "http", "headers": headers}, client.receive, limits)
        try:
            return use(form)
        finally:
            await form.close()

    return asyncio.run(main())


def pieces(*parts: bytes, size: int = 2**16) -> Iterator[bytes]:
    return (part[i : i + size] for part in parts for i in range(0, len(part), size))


def test_a_form_is_read_whole_and_its_file_has_no_name_on_the_disk():
    audio = bytes(range(256)) * 2**13  # 2 MiB, more than what is kept in memory

    def use(form):
        file = form["file"].file
        assert file._rolled and not Path(str(file.name)).exists()
        return form["language"], form["file"].filename, file.read() == audio

    assert read(Client(pieces(HEAD, audio, TAIL)), use=use) == ("en", "../../etc/evil.wav", True)


def test_a_large_upload_is_refused_by_its_length_before_it_is_read():
    client = Client(pieces(HEAD))
    with pytest.raises(ApiError, match="larger than 1 MiB") as caught:
        read(client, Limits(max_mib=1), length=str(2**30))
    assert (caught.value.status, client.sent) == (413, 0)


def test_a_large_upload_without_a_length_is_refused_when_it_is_too_large():
    client = Client(pieces(HEAD, bytes(2**24), TAIL))
    with pytest.raises(ApiError) as caught:
        read(client, Limits(max_mib=1))
    assert caught.value.status == 413 and client.sent <= 2**20 + 2**16


def test_a_silent_client_is_refused():
    with pytest.raises(ApiError, match="too slow") as caught:
        read(Client(iter([HEAD])), Limits(client_timeout=0.1))
    assert caught.value.status == 408


def test_a_client_that_sends_a_byte_now_and_then_is_refused():
    """Each byte comes in time, but all together are too slow."""
    with pytest.raises(ApiError, match="too slow") as caught:
        read(Client(iter([HEAD, *[b"a"] * 100]), wait=0.05), Limits(client_timeout=0.2))
    assert caught.value.status == 408


def test_a_slow_client_that_is_fast_enough_is_read(monkeypatch):
    monkeypatch.setattr(upload, "MIN_BYTES_PER_SECOND", 100)
    body = pieces(HEAD, bytes(100), TAIL, size=40)
    assert read(Client(body, wait=0.03), Limits(client_timeout=0.15))["language"] == "en"


def test_an_upload_has_an_end_however_fast_it_is():
    body = pieces(HEAD, bytes(2**20), TAIL, size=2**12)
    with pytest.raises(ApiError, match="more than 0.2 s in total"):
        read(Client(body, wait=0.01), Limits(request_timeout=0.2))


def test_a_service_that_ends_does_not_wait_for_uploads():
    async def main() -> None:
        headers = [(b"content-type", FORM.encode())]
        receive = Client(pieces(HEAD, bytes(2**20), TAIL, size=2**12), wait=0.01).receive
        ends = time.monotonic() + 0.2
        await read_form({"type": "http", "headers": headers}, receive, Limits(), lambda: ends - time.monotonic())

    with pytest.raises(ApiError, match="the service ends"):
        asyncio.run(main())


def test_a_client_that_leaves_is_noticed():
    async def receive():
        return {"type": "http.disconnect"}

    with pytest.raises(ClientGoneError):
        asyncio.run(read_form({"type": "http", "headers": [(b"content-type", FORM.encode())]}, receive, Limits()))


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"file": "a.wav"}'),
        ("", b""),
        ("multipart/form-data", HEAD + TAIL),
        (FORM, b"--y\r\nno form at all\r\n--y--\r\n"),
        (FORM, HEAD + b"a\r\n" + HEAD + b"b" + TAIL),
        (FORM, b'--x\r\nContent-Disposition: form-data; name="language"\r\n\r\n' + bytes(2**17) + TAIL),
        (FORM, b"".join(b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n' for _ in range(40)) + TAIL[2:]),
        (FORM, b"--x\r\nContent-Disposition: form-data\r\n\r\nb" + TAIL),
        (FORM.replace("data", "database"), HEAD + TAIL),
        (FORM, HEAD.replace(b"evil", b"e" * 2**16) + TAIL),
        (FORM, HEAD + b"a" + TAIL[:60]),
        (FORM, HEAD + b"a"),
    ],
    ids=[
        "json", "no-type", "no-boundary", "other-boundary", "two-files", "long-field", "many-fields", "no-name",
        "other-type", "long-name", "no-end", "no-end-of-file",
    ],
)  # fmt: skip
def test_what_is_no_form_is_refused(content_type, body, request):
    words = {
        "no-boundary": "names no boundary",
        "other-boundary": "cannot be read",
        "two-files": "more than one file; send one file per request",
        "long-field": "more than 64 KiB",
        "many-fields": "more than 32 fields",
        "no-name": "has no name",
        "long-name": "shorten long names of files",
        "no-end": "ends before its last boundary",
        "no-end-of-file": "ends before its last boundary",
    }
    expected = words.get(request.node.callspec.id, "must be a form")
    with pytest.raises(ApiError, match=re.escape(expected)) as caught:
        read(Client(iter([body, b"--\r\n"])), content_type=content_type)
    assert (caught.value.status, caught.value.code) == (400, "invalid_form")


def test_a_folder_for_uploads_that_is_gone_is_named_in_the_log(tmp_path, monkeypatch, capfd):
    with monkeypatch.context() as patch:  # pytest needs the folder again
        patch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        with pytest.raises(ApiError, match="no folder for uploads") as caught:
            read(Client(pieces(HEAD, bytes(2**21), TAIL)))
        assert read(Client(pieces(HEAD, bytes(2**10), TAIL)))["language"] == "en"  # small ones are kept in memory
    assert (caught.value.status, caught.value.code) == (507, "no_upload_folder")
    assert f"{tmp_path}/gone" in capfd.readouterr().out
