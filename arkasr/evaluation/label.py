"""`arkasr label`: transcribe the TD subset with the teacher and select the clips to train on.

The input is `<datadir>/td.jsonl.gz`. The output is written to `<expdir>`:

- `td_teacher.jsonl`: the teacher's transcripts, one row per clip (`td_teacher.jsonl.part` while incomplete).
- `td_teacher.jsonl.gz`: the selected cuts with the teacher's transcript as their text.
- `td_teacher.json`: which teacher transcribed, and what determined the selection.

If the clips or the selection rule change, cuts are selected again and only new clips are transcribed. If the teacher
changes, the existing transcripts are refused.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from lhotse import CutSet
from lhotse.cut import Cut
from transformers.utils import logging as transformers_logging

from arkasr.config.load import load_config, run_names
from arkasr.config.schema import Config
from arkasr.data.manifests import digest, read_cuts
from arkasr.errors import UserError
from arkasr.evaluation.decode import teacher_transcriber, write_hypotheses
from arkasr.evaluation.identity import changed_teacher, teacher_identity
from arkasr.evaluation.normalize import normalizer
from arkasr.evaluation.results_io import read_corpus_facts
from arkasr.utils.console import log
from arkasr.utils.files import write_text


def label(conf: str, expdir: str, datadir: str, overrides: list[str]) -> None:
    """Transcribe `<datadir>/td.jsonl.gz` with the teacher and write `<expdir>/td_teacher.jsonl.gz`.

    The reference is kept in each supervision's custom field `reference`. Two kinds of clips are left out and counted:
    clips with an empty transcript, and clips whose error rate exceeds `teacher_data.max_error`. Clips that already
    have a transcript of this teacher are not transcribed again.

    Args:
        conf: Configuration file with the recipe's runs. The first OPD run defines the teacher, else the first run.
        expdir: Experiment directory to write to.
        datadir: Prepared data directory.
        overrides: Configuration overrides, such as `teacher_data.max_error=0.3`.

    Raises:
        UserError: The existing transcripts are from another teacher, or no clip is left.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    names = run_names(conf)
    name = next((n for n in names if load_config(conf, n, expdir, datadir, overrides).objective == "opd"), names[0])
    config = load_config(conf, name, expdir, datadir, overrides)
    labels = Labels(config, Path(expdir), Path(datadir))
    if labels.up_to_date():
        log(f"{labels.target}: already exists")
        return
    labels.begin()
    transcriber = cache(partial(teacher_transcriber, config))
    write_hypotheses(labels.source, labels.rows, transcriber, config.decode.max_seconds, "label td")
    labels.finish()


@dataclass
class Labels:
    """The files of one `arkasr label` call (see the module docstring).

    Attributes:
        config: Configuration of the run that names the teacher.
        expdir: Experiment directory, for the output.
        datadir: Data directory, with `td.jsonl.gz`.
    """

    config: Config
    expdir: Path
    datadir: Path

    def __post_init__(self) -> None:
        self.source = self.datadir / "td.jsonl.gz"
        self.rows = self.expdir / "td_teacher.jsonl"
        self.part = self.expdir / "td_teacher.jsonl.part"
        self.target = self.expdir / "td_teacher.jsonl.gz"
        self.record = self.expdir / "td_teacher.json"

    @cached_property
    def _selection(self) -> dict[str, Any]:
        """All that determines which cuts are selected: digest of the clips, error limit, metric and normaliser."""
        limit, facts = self.config.teacher_data.max_error, {}
        if limit < 1:
            corpus = read_corpus_facts(self.datadir)
            facts = {key: corpus[key] for key in ("metric", "normalizer")}
        return {"clips": digest(str(self.source)), "max_error": limit} | facts

    def _read_record(self) -> dict[str, Any]:
        return json.loads(self.record.read_text(encoding="utf-8")) if self.record.is_file() else {}

    def _write_record(self, **values: Any) -> None:
        write_text(self.record, json.dumps(values, indent=1, ensure_ascii=False) + "\n")

    def up_to_date(self) -> bool:
        """Check whether the labelled cuts exist and match the clips, the selection rule and the teacher.

        Returns:
            True if there is nothing to do.

        Raises:
            UserError: There is no TD subset.
        """
        record = self._read_record()
        same = record.get("made_of") == self._selection
        same = same and not changed_teacher(record["teacher"], teacher_identity(self.config.teacher))
        return same and self.target.is_file()

    def begin(self) -> None:
        """Prepare the files so that only clips without a transcript are transcribed, and record the teacher.

        Raises:
            UserError: The existing transcripts are from another teacher.
        """
        teacher, existing = teacher_identity(self.config.teacher), self._transcript_file()
        changed = changed_teacher(self._read_record().get("teacher", teacher), teacher) if existing else []
        if changed:
            raise UserError(
                f"{existing}: transcripts of another teacher (changed: {', '.join(changed)}); undo the change, use "
                "another --expdir, or delete this file to transcribe all clips again"
            )
        if self.target.is_file():
            action = f"selecting again from {existing}" if existing else "transcripts not found, transcribing again"
            log(f"{self.target}: the clips or settings have changed; {action}")
        self._write_record(teacher=teacher)
        if self.rows.is_file() and {cut.id for cut in read_cuts(str(self.source))} - self._texts().keys():
            os.replace(self.rows, self.part)  # `write_hypotheses` resumes from it

    def _transcript_file(self) -> Path | None:
        """Return the complete or partial file of transcripts, if it holds any."""
        return next((p for p in (self.rows, self.part) if p.is_file() and p.stat().st_size), None)

    def _texts(self) -> dict[str, str]:
        with self.rows.open(encoding="utf-8") as file:
            return {row["id"]: row["hypothesis"] for row in map(json.loads, file)}

    def finish(self) -> None:
        """Select clips by their transcripts and write the labelled cuts.

        Raises:
            UserError: No clip is left. Labelled cuts of an earlier selection are then deleted.
        """
        cuts, texts, limit = list(read_cuts(str(self.source))), self._texts(), self.config.teacher_data.max_error
        transcribed = [cut for cut in cuts if cut.id in texts]
        with_words = [cut for cut in transcribed if texts[cut.id]]
        kept = select_by_error(with_words, texts, limit, self.datadir)
        above = f"above teacher_data.max_error={limit:g}"
        if not kept:
            self.target.unlink(missing_ok=True)  # it belongs to another selection, no run may train on it
        if not with_words:
            self.rows.unlink()  # the teacher must be trained longer, and then transcribes again
            raise UserError(
                f"{self.source}: the teacher's transcripts of all {len(transcribed)} clips are empty; train the "
                "teacher longer"
            )
        if not kept:
            raise UserError(f"{self.source}: all {len(with_words)} clips with a transcript are {above}; raise it")
        part = self.target.with_name("part-" + self.target.name)
        CutSet.from_cuts(_with_teacher_text(cut, texts[cut.id]) for cut in kept).to_file(part)
        os.replace(part, self.target)
        self._write_record(teacher=self._read_record()["teacher"], made_of=self._selection)
        empty, wrong = len(transcribed) - len(with_words), len(with_words) - len(kept)
        left_out = f"{empty} left out (empty transcript), {wrong} left out ({above})"
        log(f"{self.target}: {len(kept)} clips labelled by the teacher, {left_out}")


def select_by_error(cuts: list[Cut], texts: dict[str, str], max_error: float, datadir: Path) -> list[Cut]:
    """Select the cuts whose transcript has an error rate of at most `max_error` against the reference.

    Errors are counted as `arkasr score` counts them. A rate above 1 counts as 1, so `max_error=1` keeps all cuts. Cuts
    without a reference are kept.

    Args:
        cuts: Cuts with their reference as text.
        texts: The teacher's transcripts by cut id.
        max_error: Maximum error rate, as a fraction.
        datadir: Data directory. Its `corpus.json` gives the metric and the normaliser.

    Returns:
        The selected cuts, in the same order.
    """
    from arkasr.evaluation.tally import count

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


def _with_teacher_text(cut: Cut, text: str) -> Cut:
    supervision = cut.supervisions[0]
    supervision.custom = {**(supervision.custom or {}), "reference": supervision.text}
    supervision.text = text
    return cut
