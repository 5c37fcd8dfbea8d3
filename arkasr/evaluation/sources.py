"""What `arkasr decode` transcribes with: a trained run, another checkpoint, or the teacher of the distilled runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
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
from arkasr.evaluation.checkpoints import CONFIG, read_checkpoint, weights_of
from arkasr.evaluation.decode_record import changed_inputs, read_record, write_record
from arkasr.evaluation.earlier_scores import another_set, is_another
from arkasr.evaluation.hypothesis_file import HypothesisFile
from arkasr.evaluation.identity import changed_teacher, teacher_identity
from arkasr.evaluation.results_io import TestSet, hypothesis_file
from arkasr.evaluation.sharing import transcribed
from arkasr.evaluation.transcribers import dtype_of, run_transcriber, teacher_transcriber
from arkasr.evaluation.transcribing import Result, Transcribing, own_device
from arkasr.evaluation.workers import Workers
from arkasr.model.lora_files import is_adapter
from arkasr.utils.console import log
from arkasr.utils.hub import is_hub_id

TEACHER = "teacher"


@dataclass
class Source:
    """What transcribes: a trained run, a checkpoint (see `arkasr.evaluation.checkpoints`), or a teacher.

    Attributes:
        folder: Folder of the row, such as `<expdir>/<run>` or `<expdir>/teacher`.
        config: Configuration of the run, of the checkpoint, or of the run that names the teacher.
        is_teacher: Transcribe with the teacher that `config` names.
        config_path: Where the user can change the configuration, for messages.
        weights: Folder or Hub id of the weights. Empty for teachers.
    """

    folder: Path
    config: Config
    is_teacher: bool
    config_path: str
    weights: str = ""

    @classmethod
    def of(cls, expdir: Path, row: str, rows: Sequence[str]) -> Source:
        """Return what transcribes for one row of the tables.

        Args:
            expdir: Experiment directory.
            row: Name of a run or of a checkpoint, or `teacher`. It is the teacher of the distilled runs. Without any,
                it is the run that trained it.
            rows: All rows to decode.

        Returns:
            The run, the checkpoint or the teacher.

        Raises:
            UserError: There is no such row. See also `teacher`.
        """
        if row == TEACHER and (_distilled(expdir) or not (expdir / TEACHER / "config.yaml").is_file()):
            return cls.teacher(expdir, rows)
        checkpoint = read_checkpoint(expdir, row)
        if checkpoint is None:
            return cls.run(expdir, row)
        path = expdir / row / CONFIG
        weights = "" if checkpoint.plugin else checkpoint.path
        return cls(expdir / row, read_config(path), bool(checkpoint.plugin), str(path), weights)

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
        return cls(expdir / run, read_config(path), False, str(path), str(expdir / run / "final"))

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
        saved = _distilled(expdir)
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

    def file(self, tested: TestSet) -> HypothesisFile:
        """Return the hypothesis file of a test set.

        Args:
            tested: The test set. Its language is that of clips that name none.

        Returns:
            The file, with the rules and limits of the configuration.
        """
        data, run = self.config.data, self.folder.name
        rules = Rules.of(replace(data, language=tested.language or data.language), empty_text=True)
        advice = f"raise decode.max_new_tokens and decode.tokens_per_second in {self.config_path}"
        if self.is_teacher:
            advice = f"raise its token limits, such as teacher.options.max_new_tokens in {self.config_path}"
        return HypothesisFile(
            hypothesis_file(self.folder.parent, run, tested.name),
            tested.manifest,
            rules,
            self.config.decode.max_seconds,
            data.max_failed_share,
            f"decode {run} {tested.name}",
            f"{advice}, and repeat",
        )

    def transcribing(self) -> Transcribing:
        """Return what transcribes on the device of this rank. It loads the model with its first batch.

        Raises:
            UserError: There are fewer GPUs than processes.
        """
        make = partial(teacher_transcriber, self.config)
        if not self.is_teacher:
            make = partial(run_transcriber, self.weights, self.config.decode)
        return Transcribing(make, self.config.data, self.config.train.hang_seconds, own_device())

    @property
    def dtype(self) -> str:
        """Dtype in which the model is loaded on this machine. Empty for the teacher."""
        return "" if self.is_teacher else dtype_of(self.config.decode)

    def decode(self, file: HypothesisFile, transcribing: Transcribing, workers: Workers, tested: TestSet) -> None:
        """Transcribe a manifest, unless its hypotheses are complete.

        Args:
            file: The hypothesis file.
            transcribing: Return value of `transcribing`.
            workers: The ranks. All of them must call this.
            tested: The test set.

        Raises:
            UserError: The run is not trained, or too many clips failed.
        """
        inputs = self._inputs(file) if workers.first else {}
        if workers.decide(lambda: self._is_done(file, inputs, tested)):
            return
        if workers.first:
            write_record(file.path, inputs)
        transcribe = partial(transcribed, workers=workers, transcribing=transcribing)
        file.transcribe(workers, partial(transcribe, dtype=self.dtype))
        found = self._agreement(file, transcribe, workers, tested)
        if workers.first:
            write_record(file.path, inputs, file.failures, found)
            file.finish()

    def _agreement(
        self, file: HypothesisFile, transcribe: Callable[..., Iterable[Result]], workers: Workers, tested: TestSet
    ) -> dict[str, Any] | None:
        """Transcribe a sample in float32 and compare. None if all clips were transcribed in float32, or no sample."""
        if self.dtype in ("", "float32"):
            return None
        settings, rows = self.config.decode, file.parts.rows() if workers.first else {}
        sampled = set(workers.decide(lambda: list(sample(rows.keys() & file.clips.keys(), settings.agreement_clips))))
        if not sampled:
            return None
        seconds = settings.max_seconds / 2  # float32 needs twice the memory
        batches = evaluation_cuts(str(file.manifest), seconds, file.clips.keys() - sampled, file.rules)
        own = [(row["id"], row["hypothesis"]) for result in transcribe(batches, dtype="float32") for row in result.rows]
        exact = {name: text for one in workers.collect(own) for name, text in one}
        if not exact:  # on other ranks, or their audio can no longer be read
            return None
        found = agreement(rows, exact, tested)
        log(f"{file.path}: decoded in {self.dtype}; {in_words(found, tested.metric)}")
        return found

    def _inputs(self, file: HypothesisFile) -> dict[str, Any]:
        """Return the record of hypotheses that would be decoded now."""
        teacher = teacher_identity(self.config.teacher) if self.is_teacher else None
        return {
            "manifest": digest(str(file.manifest)),
            "source": str(file.manifest.absolute()),
            "weights": "" if self.is_teacher else weights_of(self.folder.parent, self.folder.name).digest,
            "teacher": teacher,
            "settings": {} if self.is_teacher else asdict(self.config.decode) | {"dtype": self.dtype},
            "clips": len(file.clips),
        }

    def _is_done(self, file: HypothesisFile, inputs: dict[str, Any], tested: TestSet) -> bool:
        """Return whether the hypotheses can stay. Otherwise delete outdated rows and keep the others."""
        record, is_complete = read_record(file.path), file.is_complete()
        if is_complete and not self.is_teacher:
            inputs = inputs | {"settings": asdict(self.config.decode)}  # `auto` accepts what another machine decoded
        reasons = ["there is no record of what they were decoded from"]
        if record:
            if is_another(tested, record.get("source"), record["manifest"]):
                raise UserError(another_set(tested, str(file.path), record["source"]))
            changed = changed_inputs(record, inputs, str(file.manifest), self.weights)
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
        if self.is_teacher or is_hub_id(self.weights) or is_adapter(self.weights):
            return
        if not (Path(self.weights) / "config.json").is_file():
            raise UserError(f"{self.weights}: no trained model here; run the recipe with --stage 3 first")


def _distilled(expdir: Path) -> list[Path]:
    """Return the configurations of the distilled runs of an experiment."""
    return [path for path in sorted(expdir.glob("*/config.yaml")) if read_config(path).objective == "opd"]
