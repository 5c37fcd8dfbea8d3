"""The dev error rate during training: measured on all ranks, with its doubts in the log."""

from __future__ import annotations

from collections.abc import Sequence

from arkasr.config.schema import Config
from arkasr.data.checks import Rules
from arkasr.errors import UserError
from arkasr.evaluation.dev_set import DevSet, dev_sets
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.scoring.collapse import collapsed
from arkasr.training.ranks import Ranks
from arkasr.utils.console import log
from arkasr.utils.timing import Phases

SHOWN = 100  # characters of an example


class DevError:
    """Measures the dev error rate of one run, unless `train.eval_every` is 0.

    Args:
        config: The run's configuration.
        ranks: The processes of the run.
        phases: Timer. The measurement is the phase `dev`.

    Raises:
        UserError: A setting of `train` needs the dev error rate, but there are no dev clips.
    """

    def __init__(self, config: Config, ranks: Ranks, phases: Phases):
        self.config, self.ranks, self.phases = config, ranks, phases
        data, size = config.data, config.train.eval_clips
        share = (ranks.rank, ranks.world_size)
        self.sets = dev_sets(data.dev, size, *share, rules=Rules.of(data)) if config.train.eval_every else []
        self._reported_failures: set[str] = set()
        needing = {"patience": config.train.patience, "final": config.train.final == "best" and "best"}
        for key, value in needing.items():
            if value and not self.sets:
                raise UserError(
                    f"config key `train.{key}` {value}: {data.dev} has no dev clips to measure the dev error rate; set "
                    f"train.{key} to {'last' if key == 'final' else 0}, or data.dev to cuts with transcripts"
                )

    def measure(self, student: SpeechLM) -> tuple[dict[str, float], str]:
        """Decode the dev clips on all ranks.

        Args:
            student: The model, in training mode.

        Returns:
            `dev_error`, the error rate over all ranks, 0 to 1 or more, if any reference word was read. With a CTC head
            also `dev_error_ctc`, that of the head's greedy transcripts. With a mix both are means over its members, and
            `dev_error/<member>` are in the result too. Then a text for the progress line.
        """
        if not self.sets:
            return {}, ""
        measured = {dev.name: self._measure(dev, student) for dev in self.sets}
        found = {name: rates for name, (rates, _) in measured.items() if rates}
        if not found:
            return {}, ", dev -"
        means = {key: sum(rates[key] for rates in found.values()) / len(found) for key in next(iter(found.values()))}
        if len(self.sets) == 1:
            return means, f", dev {measured[self.sets[0].name][1]}"
        notes = ", ".join(f"{name} {note}" for name, (_, note) in measured.items())
        return means | {f"dev_error/{name}": rates["dev_error"] for name, rates in found.items()}, (
            f", dev {100 * means['dev_error']:.1f} % ({notes})"
        )

    def _measure(self, dev: DevSet, student: SpeechLM) -> tuple[dict[str, float], str]:
        """Return the error rates of one dev set, none without a reference word, and a text."""
        with self.phases("dev"):
            errors = dev.errors(student, self.config.decode, self.phases.advance, self.config.train.ctc_weight == 1)
            sums = self.ranks.reduce(errors)
            pairs = [pair for part in self.ranks.gather(dev.transcripts) for pair in part]
        self._report_failures(dev.path, sums)
        if not sums["words"]:
            reason = "no clip could be read" if not sums["clips"] else "the references hold no words"
            log(f"warning: {dev.path}: no dev error rate, because {reason}")
            return {}, "-"
        if found := collapsed(*zip(*pairs, strict=True)):
            where = f"the dev clips{f' of {dev.name}' if dev.name else ''}"
            log(f"warning: collapse: {found} on {where}, so the transcripts hardly depend on the audio")
        names = {"errors": "dev_error", "ctc_errors": "dev_error_ctc"}
        rates = {name: sums[key] / sums["words"] for key, name in names.items() if key in sums}
        by_head = f", CTC {100 * rates['dev_error_ctc']:.1f} %" if "dev_error_ctc" in rates else ""
        rate = f"{100 * rates['dev_error']:.1f} %"
        show_example(f"dev {dev.name}".strip() + f" {rate}", pairs)
        return rates, rate + (" (collapsed)" if found else "") + by_head

    def _report_failures(self, path: str, sums: dict[str, float]) -> None:
        """Log the clips that could not be read, once: the audio is read only once."""
        if sums["failed"] and path not in self._reported_failures:
            total = sums["failed"] + sums["clips"]
            log(f"warning: {path}: {sums['failed']:.0f} of {total:.0f} dev clips could not be read")
        self._reported_failures.add(path)


def show_example(title: str, pairs: Sequence[tuple[str, str]]) -> None:
    """Log one reference and its transcript below each other, so that readers see what an error rate means.

    It is the reference of median length, so it is that of the same clip each time and with any number of ranks.

    Args:
        title: What the lines begin with.
        pairs: Hypothesis and reference of each clip. Texts are cut after 100 characters.
    """
    hypothesis, reference = sorted(pairs, key=lambda pair: (len(pair[1]), pair[1]))[len(pairs) // 2]
    for name, text in (("reference: ", reference), ("transcript:", hypothesis)):
        text = " ".join(text.split())  # one line, also if the text has line ends
        log(f"{title}, {name} {text if len(text) <= SHOWN else text[:SHOWN] + ' ...'}")
