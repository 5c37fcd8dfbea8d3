"""Stage 1: from a corpus on disk to sets of Lhotse cuts, with counts, hours, and dropped utterances with reasons.

The data directory gets these files:

| file | contents |
|---|---|
| `train.jsonl.gz`, `base.jsonl.gz`, `td.jsonl.gz` | training cuts: all, and the disjoint shares for Base and TD |
| `dev.jsonl.gz`, `<test set>.jsonl.gz` | development cuts, and the cuts of every test part |
| `dropped.jsonl` | one dropped utterance per line: set, id, reason, path of the audio |
| `corpus.json` | language, metric, normalizer, the sets with their counts, and what they were prepared from |
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arkasr.corpora.corpus import Corpus, Scale, read_corpus_yaml, set_name
from arkasr.corpora.cuts import PartCuts, drop_by_length, read_parts, split_base_td
from arkasr.corpora.layouts.entries import Entry
from arkasr.corpora.layouts.registry import CorpusLayout, require_layout
from arkasr.errors import UserError
from arkasr.utils.console import log

if TYPE_CHECKING:
    from lhotse.cut import Cut

# Increase this number whenever the same corpus would give other cuts. Data directories of another version are
# prepared again.
VERSION = 1
_WARN_DROPPED_SHARE = 0.2


@dataclass
class PreparedSet:
    """One set of the data directory.

    Attributes:
        cuts: Its cuts, sorted by id.
        dropped: The utterances of its parts without a cut.
    """

    cuts: list[Cut]
    dropped: list[Entry] = field(default_factory=list)


def prepare(corpus_yaml: str, scale: str, corpus_dir: str, datadir: str, num_jobs: int) -> None:
    """Write the sets of cuts, dropped.jsonl and corpus.json. Do nothing if they exist and no input has changed.

    Args:
        corpus_yaml: Path of the corpus.yaml.
        scale: `mini` or `paper`.
        corpus_dir: Directory of the corpus.
        datadir: The data directory, made if it is missing.
        num_jobs: Number of threads or processes.

    Raises:
        UserError: If the corpus is missing, has another layout, lacks a needed part or has no usable utterance in
            it, or if the data directory holds another corpus.
    """
    corpus = read_corpus_yaml(corpus_yaml)
    facts = corpus.scale(scale)
    layout = require_layout(corpus, Path(corpus_dir))
    data = Path(datadir).absolute()
    identity = {"name": corpus.name, "scale": scale, "corpus_dir": str(Path(corpus_dir).absolute())}
    inputs = {"version": VERSION, "corpus_yaml": _digest(corpus.path), "found": layout.fingerprint()}
    state = _state(data, layout, identity, inputs)
    if state == "prepared":
        log(f"{data}: {corpus.name} is already prepared, and its inputs have not changed")
        return
    log(f"Preparing {corpus.name} from {layout.root} into {data}{f' ({state})' if state else ''}")
    parts = choose_parts(layout, facts)
    sets = _collect(layout, parts, facts, data, num_jobs)
    _write(data, sets, identity | _describe(corpus, facts, parts, sets) | {"parts": parts, "inputs": inputs})


def choose_parts(layout: CorpusLayout, facts: Scale) -> dict[str, list[str]]:
    """Choose the parts to use: those that a scale names and that are on disk.

    Args:
        layout: The corpus on disk.
        facts: The scale.

    Returns:
        Lists of parts under the keys `train`, `dev` and `test`, in the order of the scale.

    Raises:
        UserError: If one of the three lists is empty.
    """
    present, chosen = layout.parts(), {}
    for use in ("train", "dev", "test"):
        wanted = list(getattr(facts, use))
        chosen[use] = [part for part in wanted if part in present]
        if not chosen[use]:
            raise UserError(
                f"{layout.root}: has none of the parts of key `{use}` in corpus.yaml ({', '.join(wanted)}), only "
                f"{', '.join(present) or 'nothing'}; add one of them, or change the key"
            )
    return chosen


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _state(data: Path, layout: CorpusLayout, identity: dict[str, str], inputs: dict[str, Any]) -> str:
    """Return "prepared", or the reason to prepare again, or "" for the first time.

    Raises UserError if the directory holds another corpus.
    """
    marker = data / "corpus.json"
    if not marker.is_file():
        return ""
    try:
        old = json.loads(marker.read_text(encoding="utf-8"))
    except ValueError:
        return "its corpus.json cannot be read"
    found, wanted = (
        f"{each.get('name')} at scale {each.get('scale')} from {each.get('corpus_dir')}" for each in (old, identity)
    )
    if found != wanted:
        raise UserError(f"{data}: holds {found}, not {wanted}; use another --datadir and --expdir")
    if old.get("inputs") != inputs:
        return "corpus.yaml, the parts on disk or this program changed"
    if any(not (data / f"{name}.jsonl.gz").is_file() for name in old["sets"]):
        return "a set is missing"
    transcripts = layout.transcripts([part for use in old["parts"].values() for part in use])
    return "files of the corpus changed" if _touched(data, marker, transcripts) else "prepared"


def _touched(data: Path, marker: Path, transcripts: list[Path]) -> bool:
    """Return whether a transcript, or the file of a dropped utterance, changed after the marker was written."""
    rows = [json.loads(line) for line in (data / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    paths = {Path(row["path"]) for row in rows} | set(transcripts)
    since = marker.stat().st_mtime
    return any(path.exists() and max(path.stat().st_mtime, path.stat().st_ctime) >= since for path in paths)


def _collect(
    layout: CorpusLayout, parts: dict[str, list[str]], facts: Scale, data: Path, num_jobs: int
) -> dict[str, PreparedSet]:
    """Read all parts and arrange their cuts as sets, sorted by id."""
    manifests = data / "manifests"
    shutil.rmtree(manifests, ignore_errors=True)  # else Lhotse returns those of an earlier call
    manifests.mkdir(parents=True)
    groups = [parts["train"], parts["dev"], *([part] for part in parts["test"])]
    read = read_parts(layout, groups, manifests, num_jobs)
    shutil.rmtree(manifests / "mirror", ignore_errors=True)
    sets = {"train": _train(read, parts["train"], facts)}
    base, td = split_base_td(sets["train"].cuts, facts)
    sets |= {"base": PreparedSet(base), "td": PreparedSet(td), "dev": _merge([read[part] for part in parts["dev"]])}
    return sets | {set_name(part): _merge([read[part]]) for part in parts["test"]}


def _train(read: dict[str, PartCuts], parts: list[str], facts: Scale) -> PreparedSet:
    trimmed = []
    for part in parts:
        kept, out = drop_by_length(read[part].cuts, facts, part)
        trimmed.append(PartCuts(kept, read[part].dropped + out))
    if not any(part.cuts for part in trimmed):
        raise UserError(
            f"no utterance of {', '.join(parts)} lasts {facts.min_seconds:g} to {facts.max_seconds:g} s; "
            "change min_seconds and max_seconds in corpus.yaml"
        )
    return _merge(trimmed)


def _merge(parts: list[PartCuts]) -> PreparedSet:
    cuts = sorted((cut for part in parts for cut in part.cuts), key=lambda cut: cut.id)
    return PreparedSet(cuts, [entry for part in parts for entry in part.dropped])


def _describe(
    corpus: Corpus, facts: Scale, parts: dict[str, list[str]], sets: dict[str, PreparedSet]
) -> dict[str, Any]:
    return {
        "language": corpus.language,
        "metric": corpus.metric,
        "normalizer": corpus.normalizer,
        "train": ["train", "base", "td"],
        "dev": "dev",
        "test_sets": [set_name(part) for part in parts["test"]],
        "paper": {set_name(part): facts.test[part] for part in parts["test"]},
        "sets": {name: _summary(name, each) for name, each in sets.items()},
    }


def _summary(name: str, each: PreparedSet) -> dict[str, Any]:
    """Count one set, log the counts, and warn if much of it was dropped."""
    dropped = dict(Counter(entry.reason for entry in each.dropped))
    hours = sum(cut.duration for cut in each.cuts) / 3600
    speakers = len({cut.supervisions[0].speaker for cut in each.cuts} - {None})
    num_dropped, total = len(each.dropped), len(each.dropped) + len(each.cuts)
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
    suffix = f"; dropped {num_dropped}: {reasons}" if num_dropped else ""
    log(f"{name}: {len(each.cuts)} cuts, {hours:.2f} h, {speakers or 'unnamed'} speakers{suffix}")
    if num_dropped > _WARN_DROPPED_SHARE * total:
        log(f"warning: {name}: {num_dropped} of {total} utterances were dropped; see dropped.jsonl")
    return {"cuts": len(each.cuts), "hours": round(hours, 4), "speakers": speakers, "dropped": dropped}


def _write(data: Path, sets: dict[str, PreparedSet], description: dict[str, Any]) -> None:
    """Write every file under a temporary name and rename it. corpus.json is last and marks the directory complete."""
    from lhotse import CutSet

    (data / "corpus.json").unlink(missing_ok=True)
    for name, each in sets.items():
        temporary = data / f".{name}.jsonl.gz"
        CutSet.from_cuts(each.cuts).to_file(temporary)
        os.replace(temporary, data / f"{name}.jsonl.gz")
    rows = [
        {"set": name, "id": entry.id, "reason": entry.reason, "path": str(entry.audio)}
        for name, each in sets.items()
        for entry in each.dropped
    ]
    _replace(data / "dropped.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    _replace(data / "corpus.json", json.dumps(description, ensure_ascii=False, indent=1) + "\n")


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
