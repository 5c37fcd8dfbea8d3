"""Small data directories and hypotheses of runs, written by hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from json_lines import write_lines

from arkasr.data.manifests import digest
from arkasr.utils.files import sampled_digest

ENGLISH = {"language": "English", "profiles": ["unicode", "paper"]}
MANDARIN = {"language": "Chinese", "profiles": ["unicode", "paper", "wenet"]}
SOURCE = {"type": "file", "channels": [0], "source": "absent.wav"}


def cut(identity: str, text: str, language: str) -> dict:
    recording = {"id": identity, "sources": [SOURCE], "sampling_rate": 16000, "num_samples": 16000, "duration": 1.0}
    part = {"id": identity, "recording_id": identity, "start": 0.0, "duration": 1.0, "channel": 0, "text": text}
    part |= {"language": language} if language else {}
    head = {"id": identity, "start": 0.0, "duration": 1.0, "channel": 0, "type": "MonoCut"}
    return {**head, "recording": recording, "supervisions": [part]}


def write_manifest(path: Path, texts: dict[str, str], language: str = "English") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        file.writelines(json.dumps(cut(identity, text, language)) + "\n" for identity, text in texts.items())
    return path


def write_data(data: Path, name: str, sets: dict[str, dict[str, str]], facts: dict, **more) -> Path:
    """Write a data directory with test sets: texts by id, by set."""
    data.mkdir(parents=True, exist_ok=True)
    for test_set, texts in sets.items():
        write_manifest(data / f"{test_set}.jsonl.gz", texts, facts["language"])
    corpus = {"name": name, "scale": "mini", "test_sets": list(sets), **facts, **more}
    (data / "corpus.json").write_text(json.dumps(corpus))
    return data


def write_hypotheses(
    expdir: Path, run: str, test_set: str, texts: dict[str, str], manifest: Path | None = None
) -> Path:
    """Write hypotheses of a run, with their record if a manifest is given."""
    path = expdir / run / "decode" / f"{test_set}.jsonl"
    fixed = {"seconds": 1.0, "num_tokens": 3, "stopped": True, "looping": False}
    write_lines(path, [{"id": identity, "hypothesis": text, **fixed} for identity, text in texts.items()])
    if manifest is not None:
        record = {"manifest": digest(str(manifest)), "source": str(manifest), "teacher": None, "settings": {}}
        record |= {"weights": sampled_digest(expdir / run / "final"), "clips": len(texts), "failed": 0}
        path.with_suffix(".json").write_text(json.dumps(record))
    return path


def scores_of(expdir: Path, run: str = "base") -> dict:
    return json.loads((expdir / run / "scores.json").read_text())
