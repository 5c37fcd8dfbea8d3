"""Stage 1: from a corpus on disk to sets of Lhotse cuts, with counts, hours, and dropped utterances with reasons.

`arkasr.corpora.data_dir` lists the files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from arkasr.corpora import data_dir
from arkasr.corpora.corpus import Corpus, read_corpus_yaml
from arkasr.corpora.cuts import CutRules, read_sets
from arkasr.corpora.download import is_synthetic
from arkasr.corpora.layouts.hf import HuggingFace
from arkasr.corpora.layouts.registry import CorpusLayout, require_layout
from arkasr.corpora.leaks import refuse_leaks
from arkasr.corpora.left_out import LeftOut
from arkasr.corpora.mix_corpus import is_mix_corpus
from arkasr.corpora.prepare_mix import prepare_mix
from arkasr.corpora.published import label
from arkasr.corpora.scale import Scale, set_name
from arkasr.corpora.set_rows import SetRows, SubsetRows, count_subsets
from arkasr.corpora.shar_sets import with_shar
from arkasr.corpora.splits import choose_uses, uses_of
from arkasr.corpora.summary import TRAINING, describe_channels, describe_sets
from arkasr.corpora.up_to_date import MOVED, Inputs, reason_to_prepare, relink
from arkasr.errors import UserError
from arkasr.utils.console import log
from arkasr.utils.files import locked


def prepare(corpus_yaml: str, scale: str, corpus_dir: str, datadir: str, num_jobs: int, shar: bool = False) -> None:
    """Write the sets of cuts, dropped.jsonl and corpus.json. Do nothing if they exist and no input has changed.

    If the corpus was moved, only the link to it and corpus.json are written. For a mix, `prepare_mix` is called.

    Args:
        corpus_yaml: Path of the corpus.yaml.
        scale: `mini`, `study` or `paper`.
        corpus_dir: Directory of the corpus.
        datadir: The data directory, made if it is missing.
        num_jobs: Number of threads, and of processes that write Shar.
        shar: Copy the audio into the data directory, in the format Lhotse Shar. A directory that has it keeps it.

    Raises:
        UserError: If the corpus is missing, has another layout, lacks a needed part or has no usable utterance in
            it, or if the data directory holds another corpus or other files, or is in use.
    """
    if is_mix_corpus(corpus_yaml):
        prepare_mix(corpus_yaml, scale, corpus_dir, datadir, num_jobs)
        return
    corpus = read_corpus_yaml(corpus_yaml)
    corpus.scale(scale)
    data, folder = Path(datadir).absolute(), Path(corpus_dir).absolute()
    data_dir.require_own(data)
    layout = require_layout(corpus, folder)
    inputs = Inputs.of(corpus, scale, folder, layout, shar or data_dir.holds_shar(data))
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
    rules = CutRules(root, corpus.language, facts.text_case, corpus.channels, num_jobs, LeftOut(facts.left_out))
    sets = _empty_sets(parts, facts, data)
    several = read_sets(layout, parts["train"], sets, rules)
    rules.left_out.require_speakers(corpus.path, sets)
    _require_length(sets["train"], facts)
    refuse_leaks(corpus, sets, num_jobs)
    whole = _with_uses(sets, facts, data)
    description = _describe(corpus, facts, inputs, sets, several, parts)
    description |= describe_sets(corpus, facts, {name: each.totals for name, each in whole.items()})
    description |= {"audio_root": str(root), "transcripts": files, "parts": parts, "inputs": inputs.record}
    shar = inputs.record.get("shar")
    data_dir.write(data, with_shar(whole, data, num_jobs) if shar else whole, description, layout.root)
    for each in sets.values():
        each.close()


def choose_parts(layout: CorpusLayout, facts: Scale) -> dict[str, list[str]]:
    """Choose the parts to use: those that a scale names and that are on disk. Log the lists without any part.

    Args:
        layout: The corpus on disk.
        facts: The scale.

    Returns:
        Lists of parts under the keys `train`, `dev` and `test`, in the order of the scale.

    Raises:
        UserError: If all three lists are empty.
    """
    present = layout.parts()
    wanted = {use: list(getattr(facts, use)) for use in ("train", "dev", "test")}
    chosen = {use: [part for part in parts if part in present] for use, parts in wanted.items()}
    absent = [f"`{use}` ({', '.join(wanted[use])})" for use, parts in chosen.items() if not parts]
    has = f"it has {', '.join(present) or 'nothing'}"
    if len(absent) == len(chosen):
        raise UserError(
            f"{layout.root}: has none of the parts of the keys {', '.join(absent)}; {has}: name them in corpus.yaml, "
            "or check --corpus_dir"
        )
    for use, parts in chosen.items():
        if wanted[use] and not parts:  # an empty list is what the user wants
            missing = f"`{use}` ({', '.join(wanted[use])})"
            log(f"warning: {layout.root}: no part of the key {missing} is there, so this set is empty; {has}")
    return chosen


def _empty_sets(parts: dict[str, list[str]], facts: Scale, data: Path) -> dict[str, SetRows]:
    train = SetRows(data, parts["train"], by_hash=True, low=facts.min_seconds, high=facts.max_seconds)
    tests = {set_name(part): SetRows(data, [part]) for part in parts["test"]}
    left_out = {name: SetRows(data, parts["train"]) for name in facts.left_out}
    return {"train": train, "dev": SetRows(data, parts["dev"]), **tests, **left_out}


def _require_length(train: SetRows, facts: Scale) -> None:
    if train.parts and not train.totals.cuts:
        raise UserError(
            f"no utterance of {', '.join(train.parts)} lasts {facts.min_seconds:g} to {facts.max_seconds:g} s; "
            "change min_seconds and max_seconds in corpus.yaml"
        )


def _with_uses(sets: dict[str, SetRows], facts: Scale, data: Path) -> dict[str, SetRows | SubsetRows]:
    """Add the sets of the section `use`."""
    train, *others = sets.items()
    uses = {name: SubsetRows(train[1], choice) for name, choice in choose_uses(train[1], facts, data).items()}
    count_subsets(train[1], uses.values())
    return dict([train, *uses.items(), *others])


def _describe(
    corpus: Corpus,
    facts: Scale,
    inputs: Inputs,
    sets: dict[str, SetRows],
    several: int,
    parts: dict[str, list[str]],
) -> dict[str, Any]:
    """Return name, channels and test sets, as in corpus.json. several: number of files with several channels."""
    synthetic = is_synthetic(inputs.folder) and inputs.scale != "paper"
    own_parts = [each for name, each in sets.items() if name not in facts.left_out]
    counts = {part: found for each in own_parts for part, found in each.totals.parts.items()}
    labels = label(corpus, facts, inputs.folder, synthetic, counts, parts["test"])
    return {
        "name": labels.name,
        **inputs.identity,
        "text_case": facts.text_case,
        "channels": describe_channels(corpus, several),
        "train": [name for name in TRAINING if name != "teacher" or name in uses_of(facts.use)],
        "dev": "dev",
        "test_sets": [*labels.paper, *facts.left_out],
        "paper": labels.paper | dict.fromkeys(facts.left_out),
    }
