"""`arkasr label`: transcribe the TD subset with the teacher and select the clips to train on.

The input is `teacher_data.clips`, by default `<datadir>/td.jsonl.gz`. The output is written to `<expdir>`:

- `td_teacher.jsonl`: the teacher's transcripts, one row per clip (`td_teacher.jsonl.part-<rank>` while incomplete).
- `td_teacher.jsonl.gz`: the selected cuts with the teacher's transcript as their text.
- `td_teacher.json`: which teacher transcribed, what determined the selection, and how many clips were left out, by
  reason.

If the clips or the selection rule change, cuts are selected again and only new clips are transcribed. If the teacher
changes, the existing transcripts are refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from arkasr.config.load import load_config, run_names
from arkasr.config.schema import Config
from arkasr.data.blocks import write_cuts
from arkasr.data.checks import Rules
from arkasr.data.manifests import digest, read_cuts
from arkasr.errors import UserError
from arkasr.evaluation.checks import check_types
from arkasr.evaluation.hypothesis_file import HypothesisFile
from arkasr.evaluation.identity import changed_teacher, teacher_identity
from arkasr.evaluation.label_selection import ABOVE, select, with_teacher_text
from arkasr.evaluation.part_files import read_rows
from arkasr.evaluation.results_io import TEACHER_TYPES, read_corpus_facts
from arkasr.evaluation.sharing import transcribed
from arkasr.evaluation.transcribers import quiet_transformers, teacher_transcriber
from arkasr.evaluation.transcribing import Transcribing, own_device
from arkasr.evaluation.workers import Workers
from arkasr.scoring.profiles import find_profile
from arkasr.utils.console import log
from arkasr.utils.files import publish, read_json, write_text


def label(conf: str, expdir: str, datadir: str, overrides: list[str]) -> None:
    """Transcribe `teacher_data.clips` with the teacher and write `<expdir>/td_teacher.jsonl.gz`.

    The reference is kept in each supervision's custom field `reference`. Clips are left out and counted if they
    failed, or if their transcript is empty, looping, cut, or has an error rate above `teacher_data.max_error`. Clips
    that already have a transcript of this teacher are not transcribed again. Under torchrun, each rank transcribes a
    share of the clips on its own GPU, or on the CPU if there is none.

    Args:
        conf: Configuration file with the recipe's runs. The first OPD run defines the teacher, else the first run.
        expdir: Experiment directory to write to.
        datadir: Prepared data directory.
        overrides: Configuration overrides, such as `teacher_data.max_error=0.3`.

    Raises:
        UserError: The existing transcripts are from another teacher, another process labels in `expdir`, too many
            clips failed, or no clip is left. There are fewer GPUs than processes.
    """
    quiet_transformers()
    with Workers(Path(expdir), "label") as workers:
        config = _config_with_teacher(
            {name: load_config(conf, name, expdir, datadir, overrides) for name in run_names(conf)}
        )
        labels = Labels(config, Path(expdir), Path(datadir))
        with workers.locked(labels.expdir, "labelling"):
            if workers.decide(labels.up_to_date):
                log(f"{labels.target}: already exists")
            else:
                _label(labels, workers)


def _label(labels: Labels, workers: Workers) -> None:
    if workers.decide(labels.begin):
        config = labels.config
        make = partial(teacher_transcriber, config)
        transcribing = Transcribing(make, config.data, config.train.hang_seconds, own_device())
        results = partial(transcribed, workers=workers, transcribing=transcribing, dtype="")
        labels.file.transcribe(workers, results)
        if workers.first:
            labels.file.finish()
    if workers.first:
        labels.finish()


def _config_with_teacher(configs: dict[str, Config]) -> Config:
    """Return the first OPD run, else the first run. Log the OPD runs with another teacher."""
    distilled = {name: config for name, config in configs.items() if config.objective == "opd"} or configs
    first = next(iter(distilled))
    teacher = teacher_identity(distilled[first].teacher)
    for name, config in distilled.items():
        if changed := changed_teacher(teacher, teacher_identity(config.teacher)):
            differs = f"{name} has another one ({', '.join(changed)})"
            log(f"warning: the clips are labelled by the teacher of the run {first}, but {differs}")
    return distilled[first]


@dataclass
class Labels:
    """The files of one `arkasr label` call (see the module docstring).

    Attributes:
        config: Configuration of the run that names the teacher.
        expdir: Experiment directory, for the output.
        datadir: Data directory.
    """

    config: Config
    expdir: Path
    datadir: Path

    def __post_init__(self) -> None:
        data = self.config.data
        self.source = Path(self.config.teacher_data.clips)
        self.target = self.expdir / "td_teacher.jsonl.gz"
        self.transcripts = self.expdir / "td_teacher.jsonl"
        self.record = self.expdir / "td_teacher.json"
        self.rules = Rules.of(data, needs_text=False)
        self.file = HypothesisFile(
            self.transcripts,
            self.source,
            self.rules,
            self.config.decode.max_seconds,
            data.max_failed_share,
            "label td",
            f"raise its token limits, such as teacher.options.max_new_tokens, delete {self.transcripts} and repeat",
        )

    @cached_property
    def _selection(self) -> dict[str, Any]:
        """All that determines which cuts are selected: digest of the clips, error limit and scoring profile."""
        limit, facts = self.config.teacher_data.max_error, {}
        if limit < 1:
            corpus = read_corpus_facts(self.datadir)
            facts = {"profile": find_profile(corpus["profiles"][0]).facts(), "language": corpus.get("language") or ""}
        return {"clips": digest(str(self.source)), "max_error": limit} | facts

    def _read_record(self) -> dict[str, Any]:
        if not self.record.is_file():
            return {}
        repair = "delete it if td_teacher.jsonl holds transcripts of the present teacher, or else delete both"
        record = read_json(self.record, repair)
        check_types(str(self.record), record, {"teacher": dict, "made_of": dict}, repair)
        check_types(f"{self.record}, teacher", record.get("teacher"), TEACHER_TYPES, repair, needed=True)
        return record

    def _write_record(self, **values: Any) -> None:
        write_text(self.record, json.dumps(values, indent=1, ensure_ascii=False) + "\n")

    def up_to_date(self) -> bool:
        """Check whether the labelled cuts exist, are whole, and match the clips, the selection rule and the teacher.

        Returns:
            True if there is nothing to do.

        Raises:
            UserError: There is no TD subset, or the record is damaged.
        """
        record = self._read_record()
        same = record.get("made_of") == self._selection
        same = same and not changed_teacher(record["teacher"], teacher_identity(self.config.teacher))
        return same and self.target.is_file() and self._is_readable()

    def _is_readable(self) -> bool:
        try:
            return len(list(read_cuts(str(self.target)))) > 0  # all of them, so that a torn end shows
        except UserError as error:
            log(f"warning: {error}")
            return False

    def begin(self) -> bool:
        """Record the teacher, and delete labelled cuts that are out of date.

        Returns:
            True if clips have to be transcribed.

        Raises:
            UserError: The existing transcripts are from another teacher.
        """
        teacher, record, existing = teacher_identity(self.config.teacher), self._read_record(), self._existing()
        changed = changed_teacher(record["teacher"], teacher) if existing and record else []
        if changed:
            raise UserError(
                f"{existing}: transcripts of another teacher (changed: {', '.join(changed)}); undo the change, use "
                "another --expdir, or delete this file to transcribe all clips again"
            )
        if existing and not record:
            log(f"warning: {existing}: no record of the teacher; its transcripts are taken for the present teacher's")
        if self.target.is_file():
            action = f"selecting again from {existing}" if existing else "transcripts not found, transcribing again"
            log(f"{self.target}: the clips or settings have changed, or it is damaged; {action}")
            self.target.unlink()  # it belongs to another selection, no run may train on it
        self._write_record(teacher=teacher)
        is_complete = self.file.is_complete()
        if not is_complete:
            self.file.reopen()
        return not is_complete

    def _existing(self) -> Path | None:
        """Return the complete or partial file of transcripts, if it holds any."""
        return next((p for p in (self.transcripts, *self.file.parts.paths()) if p.is_file() and p.stat().st_size), None)

    def finish(self) -> None:
        """Select clips by their transcripts and write the labelled cuts.

        Raises:
            UserError: No clip is left.
        """
        rows, limit = read_rows(self.transcripts)[0], self.config.teacher_data.max_error
        cuts = list(read_cuts(str(self.source), self.rules))
        kept, left_out = select(cuts, rows, limit, self.datadir)
        numbers = [f"{number} {reason}" for reason, number in left_out.items() if number]
        counts = (", ".join(numbers) or "none").replace(ABOVE, f"{ABOVE}={limit:g}")
        if not kept:
            self._refuse(left_out, counts)
        part = self.target.with_name("part-" + self.target.name)
        write_cuts(part, (with_teacher_text(cut, rows[cut.id]["hypothesis"]) for cut in kept))
        publish(part, self.target)
        counted = {"kept": len(kept), "left_out": left_out}
        self._write_record(teacher=self._read_record()["teacher"], made_of=self._selection, counts=counted)
        log(f"{self.target}: {len(kept)} clips labelled by the teacher, left out: {counts}")
        if any(row.get("stopped") is None for row in rows.values()):
            log(f"warning: {self.transcripts}: it is not reported for all transcripts whether they are cut or looping")

    def _refuse(self, left_out: dict[str, int], counts: str) -> None:
        """Raise UserError about a selection without clips."""
        if left_out[ABOVE]:
            raise UserError(f"{self.source}: no clip is left to train on: {counts}; raise teacher_data.max_error")
        self.transcripts.unlink()  # a teacher that is trained longer or has higher limits transcribes again
        raise UserError(
            f"{self.source}: no transcript of the teacher can be used: {counts}; train the teacher longer, or raise "
            "its token limits, such as teacher.options.max_new_tokens"
        )
