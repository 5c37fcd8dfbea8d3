"""The dev error rate during training: measured on all ranks, with its doubts in the log."""

from __future__ import annotations

from arkasr.config.schema import Config
from arkasr.data.checks import Rules
from arkasr.evaluation.collapse import collapsed
from arkasr.evaluation.dev_set import DevSet
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.training.ranks import Ranks
from arkasr.utils.console import log
from arkasr.utils.timing import Phases


class DevError:
    """Measures the dev error rate of one run, unless `train.eval_every` is 0.

    Args:
        config: The run's configuration.
        ranks: The processes of the run.
        phases: Timer. The measurement is the phase `dev`.
    """

    def __init__(self, config: Config, ranks: Ranks, phases: Phases):
        self.config, self.ranks, self.phases = config, ranks, phases
        data, size = config.data, config.train.eval_clips
        share = (ranks.rank, ranks.world_size)
        self.dev = DevSet(data.dev, size, *share, rules=Rules.of(data)) if config.train.eval_every else None
        self._reported_failures = False

    def measure(self, student: SpeechLM) -> tuple[float | None, str]:
        """Decode the dev clips on all ranks.

        Args:
            student: The model, in training mode.

        Returns:
            The error rate over all ranks, 0 to 1 or more, or None if no reference word was read. Then a text about it
            for the progress line.
        """
        if self.dev is None:
            return None, ""
        with self.phases("dev"):
            sums = self.ranks.reduce(self.dev.errors(student, self.config.decode, self.phases.advance))
            pairs = [pair for part in self.ranks.gather(self.dev.transcripts) for pair in part]
        self._report_failures(sums)
        if not sums["words"]:
            reason = "no clip could be read" if not sums["clips"] else "the references hold no words"
            log(f"warning: {self.config.data.dev}: no dev error rate, because {reason}")
            return None, ", dev -"
        if found := collapsed(*zip(*pairs, strict=True)):
            log(f"warning: collapse: {found} on the dev clips, so the transcripts hardly depend on the audio")
        rate = sums["errors"] / sums["words"]
        return rate, f", dev {100 * rate:.1f} %" + (" (collapsed)" if found else "")

    def _report_failures(self, sums: dict[str, float]) -> None:
        """Log the clips that could not be read, once: the audio is read only once."""
        if sums["failed"] and not self._reported_failures:
            total = sums["failed"] + sums["clips"]
            log(f"warning: {self.config.data.dev}: {sums['failed']:.0f} of {total:.0f} dev clips could not be read")
        self._reported_failures = True
