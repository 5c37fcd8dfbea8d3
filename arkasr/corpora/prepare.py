"""Stage 1: a corpus on disk to sets of Lhotse cuts, with counts, hours, and what was dropped and why."""

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
from arkasr.corpora.cuts import PartCuts, drop_by_length, read_parts, shares
from arkasr.corpora.layouts.entries import Entry
from arkasr.corpora.layouts.registry import CorpusLayout, require
from arkasr.errors import UserError
from arkasr.utils.console import log

if TYPE_CHECKING:
    from lhotse.cut import Cut

# Raised whenever the same corpus would give other cuts: data directories of another version are prepared anew.
VERSION = 1
_MUCH_DROPPED = 0.2


@dataclass
class CutsOfSet:
    """One set to be written."""

    cuts: list[Cut]
    dropped: list[Entry] = field(default_factory=list)


def prepare(corpus_yaml: str, scale: str, corpus_dir: str, datadir: str, num_jobs: int) -> None:
    """Write the sets of cuts, dropped.jsonl and, last, corpus.json into `datadir`; do nothing if they are there.

    Raises UserError for a corpus that is missing, of another layout, without a needed part or without a usable
    utterance in one, and for a data directory that holds another corpus.
    """
    corpus = read_corpus_yaml(corpus_yaml)
    facts = corpus.scale(scale)
    layout = require(corpus, Path(corpus_dir))
    data = Path(datadir).absolute()
    identity = {"name": corpus.name, "scale": scale, "corpus_dir": str(Path(corpus_dir).absolute())}
    inputs = {"version": VERSION, "corpus_yaml": _digest(corpus.path), "found": layout.fingerprint()}
    state = _state(data, layout, identity, inputs)
    if state == "prepared":
        log(f"{data}: {corpus.name} is prepared already, and nothing it was made from has changed")
        return
    log(f"Preparing {corpus.name} from {layout.root} into {data}{f' ({state})' if state else ''}")
    parts = choose_parts(layout, facts)
    sets = _collect(layout, parts, facts, data, num_jobs)
    _write(data, sets, identity | _describe(corpus, facts, parts, sets) | {"parts": parts, "inputs": inputs})


def choose_parts(layout: CorpusLayout, facts: Scale) -> dict[str, list[str]]:
    """Return the parts on disk for train, dev and test. Raises UserError if one of the three has none."""
    present, chosen = layout.parts(), {}
    for use in ("train", "dev", "test"):
        wanted = list(getattr(facts, use))
        chosen[use] = [part for part in wanted if part in present]
        if not chosen[use]:
            raise UserError(
                f"{layout.root}: no {use} part: looked for {', '.join(wanted)}; found {', '.join(present) or 'nothing'}"
            )
    return chosen


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _state(data: Path, layout: CorpusLayout, identity: dict[str, str], inputs: dict[str, Any]) -> str:
    """Return "prepared", or why there is work to do (empty for a first time). Raises UserError for another corpus."""
    marker = data / "corpus.json"
    if not marker.is_file():
        return ""
    try:
        old = json.loads(marker.read_text(encoding="utf-8"))
    except ValueError:
        return "its corpus.json cannot be read"
    had, wanted = (f"{it.get('name')} at scale {it.get('scale')} from {it.get('corpus_dir')}" for it in (old, identity))
    if had != wanted:
        raise UserError(f"{data} holds {had}, not {wanted}; give another --datadir and --expdir")
    if old.get("inputs") != inputs:
        return "the corpus.yaml, the parts on disk or this program changed"
    if any(not (data / f"{name}.jsonl.gz").is_file() for name in old["sets"]):
        return "a set is missing"
    transcripts = layout.transcripts([part for use in old["parts"].values() for part in use])
    return "files of the corpus changed" if _touched(data, marker, transcripts) else "prepared"


def _touched(data: Path, marker: Path, transcripts: list[Path]) -> bool:
    """Tell whether a transcript, or a file that was dropped, is as new as the marker (somebody mended it)."""
    rows = [json.loads(line) for line in (data / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    paths = {Path(row["path"]) for row in rows} | set(transcripts)
    since = marker.stat().st_mtime
    return any(path.exists() and max(path.stat().st_mtime, path.stat().st_ctime) >= since for path in paths)


def _collect(
    layout: CorpusLayout, parts: dict[str, list[str]], facts: Scale, data: Path, num_jobs: int
) -> dict[str, CutsOfSet]:
    """Read all parts and lay them out as sets, sorted by id."""
    manifests = data / "manifests"
    shutil.rmtree(manifests, ignore_errors=True)  # Lhotse would believe manifests of an earlier call unread
    manifests.mkdir(parents=True)
    groups = [parts["train"], parts["dev"], *([part] for part in parts["test"])]
    read = read_parts(layout, groups, manifests, num_jobs)
    shutil.rmtree(manifests / "mirror", ignore_errors=True)
    sets = {"train": _train(read, parts["train"], facts)}
    base, td = shares(sets["train"].cuts, facts)
    sets |= {"base": CutsOfSet(base), "td": CutsOfSet(td), "dev": _merge([read[part] for part in parts["dev"]])}
    return sets | {set_name(part): _merge([read[part]]) for part in parts["test"]}


def _train(read: dict[str, PartCuts], parts: list[str], facts: Scale) -> CutsOfSet:
    trimmed = []
    for part in parts:
        kept, out = drop_by_length(read[part].cuts, facts, part)
        trimmed.append(PartCuts(kept, read[part].dropped + out))
    if not any(part.cuts for part in trimmed):
        raise UserError(
            f"no utterance of {', '.join(parts)} lasts {facts.min_seconds:g} to {facts.max_seconds:g} s: "
            "change min_seconds and max_seconds in corpus.yaml"
        )
    return _merge(trimmed)


def _merge(parts: list[PartCuts]) -> CutsOfSet:
    cuts = sorted((cut for part in parts for cut in part.cuts), key=lambda cut: cut.id)
    return CutsOfSet(cuts, [entry for part in parts for entry in part.dropped])


def _describe(corpus: Corpus, facts: Scale, parts: dict[str, list[str]], sets: dict[str, CutsOfSet]) -> dict[str, Any]:
    return {
        "language": corpus.language,
        "metric": corpus.metric,
        "normalizer": corpus.normalizer,
        "train": ["train", "base", "td"],
        "dev": "dev",
        "test_sets": [set_name(part) for part in parts["test"]],
        "paper": {set_name(part): facts.test[part] for part in parts["test"]},
        "sets": {name: _summary(name, made) for name, made in sets.items()},
    }


def _summary(name: str, made: CutsOfSet) -> dict[str, Any]:
    """Count a set, say it, and warn when much of it was dropped."""
    dropped = dict(Counter(entry.reason for entry in made.dropped))
    hours = sum(cut.duration for cut in made.cuts) / 3600
    people = len({cut.supervisions[0].speaker for cut in made.cuts} - {None})
    lost, total = len(made.dropped), len(made.dropped) + len(made.cuts)
    why = f"; dropped {lost}: " + ", ".join(f"{n} {reason}" for reason, n in dropped.items()) if lost else ""
    log(f"{name}: {len(made.cuts)} cuts, {hours:.2f} h, {people or 'unnamed'} speakers{why}")
    if lost > _MUCH_DROPPED * total:
        log(f"WARNING: {name}: {lost} of {total} utterances were dropped; see dropped.jsonl")
    return {"cuts": len(made.cuts), "hours": round(hours, 4), "speakers": people, "dropped": dropped}


def _write(data: Path, sets: dict[str, CutsOfSet], description: dict[str, Any]) -> None:
    """Write every file aside and rename it, corpus.json last: its presence says that all is there."""
    from lhotse import CutSet

    (data / "corpus.json").unlink(missing_ok=True)
    for name, made in sets.items():
        aside = data / f".{name}.jsonl.gz"
        CutSet.from_cuts(made.cuts).to_file(aside)
        os.replace(aside, data / f"{name}.jsonl.gz")
    rows = [
        {"set": name, "id": entry.id, "reason": entry.reason, "path": str(entry.audio)}
        for name, made in sets.items()
        for entry in made.dropped
    ]
    _replace(data / "dropped.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    _replace(data / "corpus.json", json.dumps(description, ensure_ascii=False, indent=1) + "\n")


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
