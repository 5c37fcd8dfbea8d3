"""What the runs have recognised in one test set, normalised and counted per utterance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arkasr.errors import UserError
from arkasr.evaluation.results_io import TestSet, hypothesis_file
from arkasr.evaluation.texts_io import read_hypotheses, read_utterances
from arkasr.reporting.page.experiment import Experiment
from arkasr.scoring.tally import Tally
from arkasr.scoring.utterances import Utterance


@dataclass(frozen=True)
class DecodedSet:
    """Transcripts of N utterances of one test set.

    Attributes:
        tested: The test set.
        utterances: The utterances by id, in the order of the manifest.
        references: N normalised references.
        texts: By run, N normalised hypotheses, None where there is none.
        tallies: By run, counts per utterance. An utterance without a hypothesis counts as deletions.
        problems: By run, why its hypotheses cannot be shown.
    """

    tested: TestSet
    utterances: dict[str, Utterance]
    references: list[str]
    texts: dict[str, list[str | None]]
    tallies: dict[str, Tally]
    problems: dict[str, str]

    @property
    def speakers(self) -> list[str]:
        """N names of speakers, empty where unknown."""
        return [utterance.speaker for utterance in self.utterances.values()]

    def decoded_by(self, runs: Sequence[str]) -> np.ndarray:
        """Find the utterances that all of some runs have a hypothesis of.

        Args:
            runs: Names of runs.

        Returns:
            Boolean array [N].
        """
        return np.array([all(self.texts[run][i] is not None for run in runs) for i in range(len(self.references))])


def read_all(experiment: Experiment) -> tuple[list[DecodedSet], list[str]]:
    """Read the hypotheses of all test sets.

    Args:
        experiment: The experiment.

    Returns:
        Transcripts of each test set that can be read, and what could not be read, one sentence each.
    """
    found, problems = [], []
    for tested in experiment.sets:
        runs = [run for run, content in experiment.scores.items() if tested.name in content["sets"]]
        try:
            found.append(read_decoded(experiment.expdir, tested, runs))
        except UserError as error:
            problems.append(f"{tested.name}: {error}")
        else:
            problems += [f"{tested.name}, {run}: {error}" for run, error in found[-1].problems.items()]
    return found, problems


def read_decoded(expdir: str, tested: TestSet, runs: Sequence[str]) -> DecodedSet:
    """Read and count the hypotheses of one test set.

    Args:
        expdir: Experiment directory.
        tested: The test set.
        runs: The runs that were scored on it. Those whose file is missing or damaged are among the `problems`.

    Returns:
        The transcripts.

    Raises:
        UserError: The manifest is missing or damaged.
    """
    utterances, profile = read_utterances(tested.manifest), tested.profile
    expected = profile.normalize_all([each.text for each in utterances.values()], tested.rules)
    found = DecodedSet(tested, utterances, expected, {}, {}, {})
    references = {identity: utterance.text for identity, utterance in utterances.items()}
    for run in runs:
        try:
            rows = read_hypotheses(hypothesis_file(expdir, run, tested.name), references, tested.manifest)
        except UserError as error:
            found.problems[run] = str(error)
            continue
        texts = [rows[identity]["hypothesis"] if identity in rows else None for identity in utterances]
        shown = profile.normalize_all([text or "" for text in texts], tested.rules)
        found.texts[run] = [None if text is None else clean for text, clean in zip(texts, shown, strict=True)]
        found.tallies[run] = profile.count(found.references, shown, tested.rules)
    return found
