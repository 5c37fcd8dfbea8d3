"""Stage 1: from a corpus on disk to sets of Lhotse cuts, with counts, hours, and dropped utterances with reasons.

`arkasr.corpora.data_dir` lists the files.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from arkasr.corpora import data_dir
from arkasr.corpora.corpus import Corpus, read_corpus_yaml
from arkasr.corpora.cuts import CutRules, PartCuts, read_parts
from arkasr.corpora.data_dir import PreparedSet
from arkasr.corpora.download import is_synthetic
from arkasr.corpora.layouts.hf import HuggingFace
from arkasr.corpora.layouts.registry import CorpusLayout, require_layout
from arkasr.corpora.published import label
from arkasr.corpora.scale import Scale, set_name
from arkasr.corpora.splits import drop_by_length, split_base_td
from arkasr.corpora.up_to_date import MOVED, Inputs, reason_to_prepare, relink
from arkasr.errors import UserError
from arkasr.utils.console import log
from arkasr.utils.files import locked

_WARN_DROPPED_SHARE = 0.2


def prepare(corpus_yaml: str, scale: str, corpus_dir: str, datadir: str, num_jobs: int) -> None:
    """Write the sets of cuts, dropped.jsonl and corpus.json. Do nothing if they exist and no input has changed.

    If the corpus was moved, only the link to it and corpus.json are written.

    Args:
        corpus_yaml: Path of the corpus.yaml.
        scale: `mini` or `paper`.
        corpus_dir: Directory of the corpus.
        datadir: The data directory, made if it is missing.
        num_jobs: Number of threads.

    Raises:
        UserError: If the corpus is missing, has another layout, lacks a needed part or has no usable utterance in
            it, or if the data directory holds another corpus or other files, or is in use.
    """
    corpus = read_corpus_yaml(corpus_yaml)
    corpus.scale(scale)
    data, folder = Path(datadir).absolute(), Path(corpus_dir).absolute()
    data_dir.require_own(data)
    layout = require_layout(corpus, folder)
    inputs = Inputs.of(corpus, scale, folder, layout)
    if reason_to_prepare(data, layout, inputs) is None:  # before the lock: others may share the data for reading only
        log(f"{data}: {corpus.name} is already prepared, and its inputs have not changed")
        return
    with locked(data, "arkasr prepare"):
        reason = reason_to_prepare(data, layout, inputs)
        if reason == MOVED and relink(data, layout, inputs):
            return
        log(f"Preparing {corpus.name} from {layout.root} into {data}{f' ({reason})' if reason else ''}")
        _prepare(corpus, layout, inputs, data, num_jobs)


def _prepare(corpus: Corpus, layout: CorpusLayout, inputs: Inputs, data: Path, num_jobs: int) -> None:
    facts = corpus.scale(inputs.scale)
    parts = choose_parts(layout, facts)
    data_dir.claim(data)
    root = data_dir.link_corpus(data, layout.root)
    if isinstance(layout, HuggingFace):
        layout.audio_dir = data / data_dir.AUDIO
    transcripts = layout.transcripts([part for use in parts.values() for part in use])
    files = {"files": len(transcripts), "sha256": data_dir.transcripts_digest(layout.root, transcripts)}
    rules = CutRules(root, corpus.language, facts.text_case, corpus.channels, num_jobs)
    read = read_parts(layout, [parts["train"], parts["dev"], *([part] for part in parts["test"])], rules)
    sets = _arrange(read, parts, facts)
    description = _describe(corpus, facts, inputs, read, parts, sets)
    description |= {"audio_root": str(root), "transcripts": files, "parts": parts, "inputs": inputs.record}
    data_dir.write(data, sets, description, layout.root)


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


def _arrange(read: dict[str, PartCuts], parts: dict[str, list[str]], facts: Scale) -> dict[str, PreparedSet]:
    """Arrange the cuts of all parts as sets, sorted by id."""
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
    corpus: Corpus,
    facts: Scale,
    inputs: Inputs,
    read: dict[str, PartCuts],
    parts: dict[str, list[str]],
    sets: dict[str, PreparedSet],
) -> dict[str, Any]:
    """Return the content of corpus.json, and log it."""
    synthetic = is_synthetic(inputs.folder) and inputs.scale == "mini"
    labels = label(corpus, facts, inputs.folder, synthetic, read, parts["test"])
    return {
        "name": labels.name,
        **inputs.identity,
        "language": corpus.language,
        "metric": corpus.metric,
        "normalizer": corpus.normalizer,
        "text_case": facts.text_case,
        "channels": _channels(corpus, read),
        "train": ["train", "base", "td"],
        "dev": "dev",
        "test_sets": list(labels.paper),
        "paper": labels.paper,
        "sets": {name: _summary(name, each) for name, each in sets.items()},
    }


def _channels(corpus: Corpus, read: dict[str, PartCuts]) -> dict[str, Any]:
    """Count the used files with several channels, and log what happens to them."""
    count = sum(part.num_files_with_channels for part in read.values())
    if count:
        what = "the mean of their channels" if corpus.channels == "mix" else f"channel {corpus.channels}"
        log(f"{count} audio files have several channels: {what} is used (key channels of corpus.yaml)")
    return {"policy": corpus.channels, "files": count}


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
