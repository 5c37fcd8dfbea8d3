"""Durable writes, digests and locks."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from arkasr.errors import UserError
from arkasr.utils.files import locked, publish, read_json, sampled_digest, sha256, write_text

HOLD = """
import sys
from pathlib import Path
from arkasr.utils.files import locked
with locked(Path(sys.argv[1]), "decoding"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_write_text_replaces_the_file_and_leaves_no_draft(tmp_path: Path) -> None:
    target = tmp_path / "new" / "run.json"
    write_text(target, "{}")
    write_text(target, "{é}")
    assert target.read_text(encoding="utf-8") == "{é}"
    assert [p.name for p in target.parent.iterdir()] == ["run.json"]


def test_publish_renames_a_folder_with_its_files(tmp_path: Path) -> None:
    part = tmp_path / "writing"
    (part / "inner").mkdir(parents=True)
    (part / "inner" / "weights").write_bytes(b"x")
    publish(part, tmp_path / "final")
    assert (tmp_path / "final" / "inner" / "weights").read_bytes() == b"x"
    assert not part.exists()


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "not valid JSON"), (b"\xff\xfe", "not valid JSON"), (b"[1]", "got list")]
)
def test_read_json_names_the_file_and_the_remedy(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"run.json.*{message}.*run stage 3"):
        read_json(path, "run stage 3")


def test_sha256_equals_the_digest_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()


def test_sampled_digest_changes_with_weights_and_ignores_notes(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(1000))
    before = sampled_digest(tmp_path)
    (tmp_path / "README.md").write_text("a note")
    (tmp_path / ".hidden").write_text("")
    assert sampled_digest(tmp_path) == before
    weights.write_bytes(bytes(999) + b"\x01")
    assert sampled_digest(tmp_path) != before
    assert sampled_digest(tmp_path / "Qwen" / "model-on-the-hub") == ""


@pytest.mark.slow
def test_locked_refuses_a_second_process_and_ends_with_the_first(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        message = f"decoding, process {holder.pid} on .* is using this folder"
        with pytest.raises(UserError, match=message), locked(tmp_path, "scoring"):
            pass
        holder.kill()
    with locked(tmp_path, "scoring"):
        pass
