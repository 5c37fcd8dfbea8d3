"""The files of `arkasr label`: the teacher's transcripts, the cuts made of them, and what both were made from."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from lhotse import CutSet
from transformers.utils import logging as transformers_logging

from arkasr.config.load import load_config, run_names
from arkasr.config.schema import Config, PluginConfig
from arkasr.data.manifests import read_cuts, shards
from arkasr.errors import UserError
from arkasr.evaluation.decode import by_teacher, write_hypotheses
from arkasr.evaluation.normalize import normalizer
from arkasr.evaluation.results_io import read_corpus_facts, write_text
from arkasr.utils.console import log

SAMPLES, SAMPLE_BYTES = 64, 4096  # of a file of weights: training moves nearly all, and reading all takes long


@dataclass
class Labels:
    """The TD subset `<datadir>/td.jsonl.gz` on its way to `<expdir>/td_teacher.jsonl.gz`.

    td_teacher.jsonl beside it holds the transcripts, td_teacher.json whose they are and by which choice the cuts were
    made. So the choice can be made anew without the teacher, and transcripts of another teacher are refused.
    """

    config: Config
    expdir: Path
    datadir: Path

    def __post_init__(self):
        self.source = self.datadir / "td.jsonl.gz"
        self.rows = self.expdir / "td_teacher.jsonl"
        self.part = self.expdir / "td_teacher.jsonl.part"
        self.target = self.expdir / "td_teacher.jsonl.gz"
        self.record = self.expdir / "td_teacher.json"

    @cached_property
    def _wanted(self) -> dict[str, Any]:
        """What decides about the cuts: the clips, what is asked of their transcripts, and how errors are counted."""
        clips, limit, facts = hashlib.sha256(), self.config.teacher_data.max_error, {}
        for shard in shards(str(self.source)):
            with shard.open("rb") as file:
                clips.update(hashlib.file_digest(file, "sha256").digest())
        if limit < 1:
            corpus = read_corpus_facts(self.datadir)
            facts = {key: corpus[key] for key in ("metric", "normalizer")}
        return {"clips": clips.hexdigest(), "max_error": limit} | facts

    def _known(self) -> dict[str, Any]:
        return json.loads(self.record.read_text(encoding="utf-8")) if self.record.is_file() else {}

    def _write(self, **known: Any) -> None:
        write_text(self.record, json.dumps(known, indent=1, ensure_ascii=False) + "\n")

    def ready(self) -> bool:
        """Tell whether the cuts are there and would be the same again. Raises UserError where there are no clips."""
        known = self._known()
        same = known.get("made_of") == self._wanted and not _changes(known["teacher"], identity(self.config.teacher))
        return same and self.target.is_file()

    def begin(self) -> None:
        """Prepare to transcribe what has no transcript yet, and note who does.

        Raises UserError where another teacher made the transcripts that are there.
        """
        teacher, made = identity(self.config.teacher), self._transcripts()
        changes = _changes(self._known().get("teacher", teacher), teacher) if made else []
        if changes:
            raise UserError(
                f"{made}: transcripts of another teacher ({', '.join(changes)}): take the change back, give another "
                "--expdir, or delete this file and have all clips transcribed anew"
            )
        if self.target.is_file():
            why = f"is made anew from {made}" if made else "its transcripts are gone, so the teacher is asked anew"
            log(f"{self.target}: made of other clips or settings; {why}")
        self._write(teacher=teacher)
        if self.rows.is_file() and {cut.id for cut in read_cuts(str(self.source))} - self._texts().keys():
            os.replace(self.rows, self.part)  # to be carried on

    def _transcripts(self) -> Path | None:
        """Return the file of transcripts, finished or not, where it holds any."""
        return next((p for p in (self.rows, self.part) if p.is_file() and p.stat().st_size), None)

    def _texts(self) -> dict[str, str]:
        with self.rows.open(encoding="utf-8") as file:
            return {made["id"]: made["hypothesis"] for made in map(json.loads, file)}

    def finish(self) -> None:
        """Make the cuts of the finished transcripts. Raises UserError where no clip is left."""
        cuts, texts, limit = list(read_cuts(str(self.source))), self._texts(), self.config.teacher_data.max_error
        told = [cut for cut in cuts if cut.id in texts]
        heard = [cut for cut in told if texts[cut.id]]
        kept = agreeing(heard, texts, limit, self.datadir)
        above = f"above teacher_data.max_error={limit:g}"
        if not kept:
            self.target.unlink(missing_ok=True)  # no run may train on what another choice made
        if not heard:
            self.rows.unlink()  # nothing in it is of use to the teacher that is trained longer
            raise UserError(
                f"{self.source}: the teacher heard no words in any of its {len(told)} clips; train it longer"
            )
        if not kept:
            raise UserError(
                f"{self.source}: all {len(heard)} clips in which the teacher hears words are {above}; raise it"
            )
        part = self.target.with_name("part-" + self.target.name)
        CutSet.from_cuts(_relabelled(cut, texts[cut.id]) for cut in kept).to_file(part)
        os.replace(part, self.target)
        self._write(teacher=self._known()["teacher"], made_of=self._wanted)
        left = f"{len(told) - len(heard)} left out (no words heard), {len(heard) - len(kept)} left out ({above})"
        log(f"{self.target}: {len(kept)} clips labelled by the teacher, {left}")


def identity(teacher: PluginConfig) -> dict[str, Any]:
    """Tell a teacher from others: its name and options, and of a model on this disk a digest of its files.

    Of large files some samples are read. The digest is empty for a model elsewhere, such as on the Hub.
    """
    options = {key: value for key, value in teacher.options.items() if key != "path"}
    path = str(teacher.options.get("path", ""))
    return {"name": teacher.name, "options": options, "path": path, "weights": _digest(Path(path)) if path else ""}


def _digest(place: Path) -> str:
    files = [place] if place.is_file() else sorted(p for p in place.glob("[!.]*") if p.is_file() and p.suffix != ".md")
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            for sample in range(SAMPLES):
                file.seek(size * sample // SAMPLES)
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest() if files else ""


def _changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Name what differs between two identities; a folder that moved is the same teacher, by its weights."""
    changed = ["teacher.name"] if old["name"] != new["name"] else []
    absent = object()
    keys = sorted({*old["options"], *new["options"]})
    changed += [
        f"teacher.options.{key}" for key in keys if old["options"].get(key, absent) != new["options"].get(key, absent)
    ]
    by = "weights" if old["weights"] and new["weights"] else "path"
    if old[by] != new[by]:
        changed.append("other weights in teacher.options.path" if by == "weights" else "teacher.options.path")
    return changed


def agreeing(cuts: list, texts: dict[str, str], max_error: float, datadir: Path) -> list:
    """Keep the cuts whose transcript is within `max_error` of the reference, as test sets are scored.

    A clip's rate counts as at most 1, so that 1 keeps all; a clip without a reference is kept.
    """
    from arkasr.evaluation.score import count

    if max_error >= 1.0 or not cuts:
        return cuts
    corpus = read_corpus_facts(datadir)
    normalize = normalizer(corpus["normalizer"])
    references = [normalize(cut.supervisions[0].text or "") for cut in cuts]
    tally = count(references, [normalize(texts[cut.id]) for cut in cuts], corpus["metric"])
    return [
        cut
        for cut, errors, length in zip(cuts, tally.errors, tally.lengths)
        if not length or errors <= max_error * length
    ]


def _relabelled(cut, text: str):
    supervision = cut.supervisions[0]
    supervision.custom = {**(supervision.custom or {}), "reference": supervision.text}
    supervision.text = text
    return cut


def label(conf: str, expdir: str, datadir: str, overrides: list[str]) -> None:
    """Have the teacher transcribe the TD subset: `<datadir>/td.jsonl.gz` becomes `<expdir>/td_teacher.jsonl.gz`.

    The reference stays in each supervision's custom field `reference`. Left out and counted are clips in which the
    teacher hears nothing, and those whose error rate against their reference exceeds `teacher_data.max_error`. Clips
    that have this teacher's transcript are not transcribed again; UserError where it is another teacher's.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    names = run_names(conf)
    name = next((n for n in names if load_config(conf, n, expdir, datadir, overrides).objective == "opd"), names[0])
    config = load_config(conf, name, expdir, datadir, overrides)
    labels = Labels(config, Path(expdir), Path(datadir))
    if labels.ready():
        log(f"{labels.target}: already there")
        return
    labels.begin()
    transcriber = cache(partial(by_teacher, config))
    write_hypotheses(labels.source, labels.rows, transcriber, config.decode.max_seconds, "label td")
    labels.finish()
