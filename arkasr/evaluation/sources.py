"""What `arkasr decode` transcribes with: a trained run, or the teacher of the distilled runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from arkasr.config.load import read_config
from arkasr.config.schema import Config
from arkasr.data.batches import evaluation_cuts
from arkasr.data.checks import Rules
from arkasr.data.manifests import digest
from arkasr.errors import UserError
from arkasr.evaluation.agreement import agreement, in_words, sample
from arkasr.evaluation.decode_record import changed_inputs, read_record, write_record
from arkasr.evaluation.hypothesis_file import HypothesisFile, read_rows
from arkasr.evaluation.identity import changed_teacher, teacher_identity
from arkasr.evaluation.processes import Processes
from arkasr.evaluation.transcribers import dtype_of, run_transcriber, teacher_transcriber
from arkasr.utils.console import log
from arkasr.utils.files import sampled_digest

TEACHER = "teacher"


@dataclass
class Source:
    """What transcribes: a trained run, or the teacher of distilled runs.

    Attributes:
        folder: The run's folder, or `<expdir>/teacher`.
        config: Configuration of the run, or of the run that names the teacher.
        is_teacher: Transcribe with the teacher that `config` names.
        config_path: Where the user can change the configuration, for messages.
    """

    folder: Path
    config: Config
    is_teacher: bool
    config_path: str

    @classmethod
    def run(cls, expdir: Path, run: str) -> Source:
        """Return a trained run.

        Args:
            expdir: Experiment directory.
            run: Name of the run.

        Returns:
            The run, trained or not yet trained.

        Raises:
            UserError: There is no such run.
        """
        path = expdir / run / "config.yaml"
        if not path.is_file():
            raise UserError(f"{expdir / run}: no such run (no config.yaml); train it with --stage 3")
        return cls(expdir / run, read_config(path), False, str(path))

    @classmethod
    def teacher(cls, expdir: Path, runs: Sequence[str]) -> Source:
        """Return the teacher of the distilled runs.

        Args:
            expdir: Experiment directory.
            runs: The runs to decode. Distilled runs among them have precedence over others in `expdir`.

        Returns:
            The teacher.

        Raises:
            UserError: No distilled run names a teacher, or several runs name different ones.
        """
        saved = [path for path in sorted(expdir.glob("*/config.yaml")) if read_config(path).objective == "opd"]
        paths = [path for path in saved if path.parent.name in runs] or saved
        if not paths:
            raise UserError(
                f"{expdir}: no distilled run names a teacher to decode with; train base_opd, or remove `teacher` from "
                "--runs"
            )
        first = read_config(paths[0])
        for path in paths[1:]:
            identities = [teacher_identity(config.teacher) for config in (first, read_config(path))]
            if changed := changed_teacher(*identities):
                raise UserError(
                    f"{expdir}: the runs {paths[0].parent.name} and {path.parent.name} have different teachers "
                    f"({', '.join(changed)}), so `teacher` in --runs is ambiguous; name one of these runs in --runs, "
                    "or remove `teacher`"
                )
        return cls(expdir / TEACHER, first, True, str(paths[0]))

    def file(self, path: Path, manifest: Path, name: str) -> HypothesisFile:
        """Return the hypothesis file of a manifest.

        Args:
            path: The hypothesis file.
            manifest: Manifest of the clips.
            name: Label of the progress line.

        Returns:
            The file, with the rules and limits of the configuration.
        """
        data, rules = self.config.data, Rules.of(self.config.data, empty_text=True)
        advice = f"raise decode.max_new_tokens and decode.tokens_per_second in {self.config_path}"
        if self.is_teacher:
            advice = f"raise its token limits, such as teacher.options.max_new_tokens in {self.config_path}"
        return HypothesisFile(
            path, manifest, rules, self.config.decode.max_seconds, data.max_failed_share, name, f"{advice}, and repeat"
        )

    def processes(self, count: int) -> Processes:
        """Return the processes that transcribe.

        Args:
            count: Number of processes.

        Returns:
            The processes. They load the model with their first batch.

        Raises:
            UserError: There are fewer GPUs than processes.
        """
        make = partial(teacher_transcriber, self.config)
        if not self.is_teacher:
            make = partial(run_transcriber, self.folder, self.config.decode)
        return Processes(make, count, self.config.data, self.config.train.hang_seconds)

    @property
    def dtype(self) -> str:
        """Dtype in which the model is loaded on this machine. Empty for the teacher."""
        return "" if self.is_teacher else dtype_of(self.config.decode)

    def decode(self, file: HypothesisFile, processes: Processes, corpus: dict[str, Any]) -> None:
        """Transcribe a manifest, unless its hypotheses are complete.

        Args:
            file: The hypothesis file.
            processes: The processes that transcribe.
            corpus: Content of corpus.json.

        Raises:
            UserError: The run is not trained, or too many clips failed.
        """
        inputs = self._inputs(file)
        if self._is_done(file, inputs):
            return
        write_record(file.path, inputs)
        file.transcribe(partial(processes.transcribe, dtype=self.dtype))
        write_record(file.path, inputs, file.failures, self._agreement(file, processes, corpus))
        file.finish()

    def _agreement(self, file: HypothesisFile, processes: Processes, corpus: dict[str, Any]) -> dict[str, Any] | None:
        """Transcribe a sample in float32 and compare. None if all clips were transcribed in float32, or no sample."""
        rows, settings = read_rows(file.part)[0], self.config.decode
        clips = sample(rows.keys() & file.clips.keys(), settings.agreement_clips)
        if self.dtype in ("", "float32") or not clips:
            return None
        seconds = settings.max_seconds / 2  # float32 needs twice the memory
        batches = evaluation_cuts(str(file.manifest), seconds, file.clips.keys() - clips, file.rules)
        exact = [row for result in processes.transcribe(batches, "float32") for row in result.rows]
        if not exact:  # their audio can no longer be read
            return None
        found = agreement(rows, {row["id"]: row["hypothesis"] for row in exact}, corpus)
        log(f"{file.path}: decoded in {self.dtype}; {in_words(found, corpus)}")
        return found

    def _inputs(self, file: HypothesisFile) -> dict[str, Any]:
        """Return the record of hypotheses that would be decoded now."""
        teacher = teacher_identity(self.config.teacher) if self.is_teacher else None
        return {
            "manifest": digest(str(file.manifest)),
            "weights": "" if self.is_teacher else sampled_digest(self.folder / "final"),
            "teacher": teacher,
            "settings": {} if self.is_teacher else asdict(self.config.decode) | {"dtype": self.dtype},
            "clips": len(file.clips),
        }

    def _is_done(self, file: HypothesisFile, inputs: dict[str, Any]) -> bool:
        """Return whether the hypotheses can stay. Otherwise delete outdated rows and keep the others."""
        record, is_complete = read_record(file.path), file.is_complete()
        if is_complete and not self.is_teacher:
            inputs = inputs | {"settings": asdict(self.config.decode)}  # `auto` accepts what another machine decoded
        reasons = ["there is no record of what they were decoded from"]
        if record:
            changed = changed_inputs(record, inputs, str(file.manifest), str(self.folder / "final"))
            reasons = [f"changed: {', '.join(changed)}"] if changed else []
        if is_complete and not (record and reasons):
            note = "" if record else f"; warning: {reasons[0]}; delete it to decode again"
            log(f"{file.path}: already exists{note}")
            return True
        self._require_model()
        if not reasons:
            file.reopen()
        elif num_rows := file.discard():
            log(f"{file.path}: {num_rows} hypotheses are out of date ({reasons[0]}); decoding again")
        return False

    def _require_model(self) -> None:
        if not self.is_teacher and not (self.folder / "final" / "config.json").is_file():
            raise UserError(f"{self.folder / 'final'}: no trained model here; run the recipe with --stage 3 first")
