"""Small corpora of tones in the three layouts, and their preparation."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import soundfile
from lhotse import CutSet

from arkasr.corpora.prepare import prepare

EGS = Path(__file__).parents[2] / "egs"
CASES = Path(__file__).parents[3] / "shared" / "cases"


def tone(seconds: float, rate: int = 16000, channels: int = 1) -> np.ndarray:
    samples = 0.1 * np.sin(np.arange(round(seconds * rate)) * 0.05)
    return np.stack([samples] * channels, axis=1) if channels > 1 else samples


def librispeech(root: Path, parts=("train-clean-5", "dev-clean-2", "test-clean"), rate: int = 16000) -> Path:
    """Write four utterances per part, by two speakers."""
    for part in parts:
        for number in (1, 2):
            speaker = f"{'99' if part == 'train-clean-360' else len(part)}{number}"
            home = root / part / speaker / "7"
            home.mkdir(parents=True)
            stem = f"{speaker}-7"
            for index in range(2):
                soundfile.write(home / f"{stem}-{index:04d}.flac", tone(0.5 + 0.25 * index, rate), rate)
            (home / f"{stem}.trans.txt").write_text(f"{stem}-0000 RED  DOGS\n{stem}-0001 BLUE CATS\n")
    return root


def aishell(root: Path) -> Path:
    lines = []
    for part, speaker in (("train", "S0002"), ("dev", "S0724"), ("test", "S0764")):
        home = root / "data_aishell" / "wav" / part / speaker
        home.mkdir(parents=True)
        for index in range(3):
            name = f"BAC009{speaker}W{index:04d}"
            soundfile.write(home / f"{name}.wav", tone(0.6), 16000)
            lines.append(f"{name} 老师 看书\n")
    (root / "data_aishell" / "transcript").mkdir()
    (root / "data_aishell" / "transcript" / "aishell_transcript_v0.8.txt").write_text("".join(lines), encoding="utf-8")
    return root


def wenetspeech(root: Path, rate: int = 16000) -> Path:
    audios = []
    for name in ("L", "DEV", "TEST_NET", "TEST_MEETING"):
        path = f"audio/{name.lower()}/B00000/Y{name}.opus"
        (root / path).parent.mkdir(parents=True)
        soundfile.write(root / path, tone(4.0, rate), rate, format="OGG", subtype="OPUS")
        segments = [
            {"sid": f"Y{name}_S{i:05d}", "begin_time": i + 0.25, "end_time": i + 1.0, "subsets": [name],
             "text": "小猫喝水"}
            for i in range(3)
        ]  # fmt: skip
        audios.append({"aid": f"Y{name}", "duration": 4.0, "path": path, "segments": segments})
    (root / "WenetSpeech.json").write_text(json.dumps({"audios": audios}), encoding="utf-8")
    return root


MAKERS = {"librispeech": librispeech, "aishell": aishell, "wenetspeech": wenetspeech}


def edit_json(root: Path, change) -> None:
    path = root / "WenetSpeech.json"
    content = json.loads(path.read_text())
    change(content["audios"])
    path.write_text(json.dumps(content))


def recipe(folder: Path, name: str, *changes: tuple[str, str]) -> str:
    """Write the corpus.yaml of a recipe with texts replaced. Return its path."""
    text = (EGS / name / "corpus.yaml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "corpus.yaml"
    path.write_text(text)
    return str(path)


def run(name: str, corpus: Path, data: Path, yaml: str = "", scale: str = "mini") -> dict:
    prepare(yaml or str(EGS / name / "corpus.yaml"), scale, str(corpus), str(data), 1)
    return json.loads((data / "corpus.json").read_text())


def cuts(data: Path, name: str) -> list:
    """Read a set in the order of its file."""
    return list(CutSet.from_file(data / f"{name}.jsonl.gz"))


def cuts_by_id(data: Path, name: str) -> list:
    return sorted(cuts(data, name), key=lambda cut: cut.id)


def dropped(data: Path) -> list[tuple[str, str, str]]:
    rows = [json.loads(line) for line in (data / "dropped.jsonl").read_text().splitlines()]
    return sorted((row["set"], row["id"], row["reason"]) for row in rows)


def case(folder: Path, name: str) -> Path:
    """Copy a shared case, with its links, which may have been stored as files with the name of their target."""
    shutil.copytree(CASES / name, folder, symlinks=True, copy_function=shutil.copyfile)
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755)
            if path.is_file() and path.stat().st_size < 200 and path.read_bytes().startswith(b"../"):
                target = path.read_text().strip()
                path.unlink()
                path.symlink_to(target)
    return folder / "corpus"


def move_behind_link(path: Path, elsewhere: Path) -> None:
    """Move a file or folder to another place, and leave a link."""
    elsewhere.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, elsewhere)
    os.symlink(elsewhere, path)
