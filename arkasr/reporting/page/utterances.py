"""Utterances with their audio and the alignments of their transcripts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lhotse.cut import Cut

from arkasr.data.manifests import read_cuts
from arkasr.evaluation.texts_io import TEXTS_ONLY
from arkasr.languages import known_language
from arkasr.reporting.page.alignments import Piece, pieces
from arkasr.reporting.page.audio import AudioClips
from arkasr.reporting.page.blocks import Cards, Fold, Items, Paragraph, Section, spans
from arkasr.reporting.page.decoded import DecodedSet
from arkasr.reporting.page.experiment import Experiment
from arkasr.reporting.page.looks import Look
from arkasr.reporting.page.ranking import Group, groups
from arkasr.scoring.utterances import Utterance

READING = """\
Utterances whose number of errors changed most from Base, and those with most errors left. Texts are normalised as for
the error rates. Two words one above the other: the upper one is the reference, the lower one was recognised instead.
A plus marks what was added. A minus and a line through the word mark what is missing."""


@dataclass(frozen=True)
class Transcript:
    """One hypothesis of a card: the run, its number of errors, and its alignment. No alignment: not decoded."""

    look: Look
    errors: int
    pieces: Sequence[Piece] | None


@dataclass(frozen=True)
class Card:
    """One utterance with its transcripts. `audio` is an address, or `silent` says why there is none."""

    anchor: str
    identity: str
    language: str
    utterance: Utterance
    reference: str
    transcripts: Sequence[Transcript]
    audio: str
    silent: str


@dataclass
class CardGroup:
    """Cards of one group of utterances. Those that an earlier group of the test set has are `links`."""

    title: str
    metric: str
    cards: list[Card] = field(default_factory=list)
    links: list[Card] = field(default_factory=list)


def cards(
    decoded: DecodedSet, chosen: Sequence[Group], shown: Sequence[str], looks: Mapping[str, Look], clips: AudioClips
) -> list[CardGroup]:
    """Make the cards of groups of utterances.

    Args:
        decoded: The transcripts of one test set.
        chosen: The groups.
        shown: Runs whose transcripts each card has.
        looks: Look by run.
        clips: Encodes the audio.

    Returns:
        The groups with their cards.
    """
    identities, made, found = list(decoded.utterances), dict[int, Card](), []
    cuts = _cuts(decoded, {identities[index] for group in chosen for index in group.chosen})
    runs = [run for run in shown if run in decoded.texts]
    for group in chosen:
        found.append(CardGroup(group.title, decoded.tested.metric))
        for index in group.chosen:
            if index in made:
                found[-1].links.append(made[index])
                continue
            made[index] = _card(decoded, index, runs, looks, clips.add(cuts.get(identities[index])))
            found[-1].cards.append(made[index])
    return found


def _cuts(decoded: DecodedSet, wanted: set[str]) -> dict[str, Cut]:
    found: dict[str, Cut] = {}
    for cut in read_cuts(str(decoded.tested.manifest), TEXTS_ONLY) if wanted else ():
        if cut.id in wanted:
            found[cut.id] = cut
        if len(found) == len(wanted):
            break
    return found


def _card(
    decoded: DecodedSet, index: int, runs: Sequence[str], looks: Mapping[str, Look], audio: tuple[str, str]
) -> Card:
    tested, reference = decoded.tested, decoded.references[index]
    identity, utterance = list(decoded.utterances.items())[index]
    transcripts = []
    for run in runs:
        text, errors = decoded.texts[run][index], int(decoded.tallies[run].errors[index])
        aligned = None if text is None else pieces(reference, text, tested.metric)
        transcripts.append(Transcript(looks[run], errors, aligned))
    language = known_language(tested.language) if tested.language else None
    code = language.code if language else ""
    return Card(_anchor(tested.name, identity), identity, code, utterance, reference, transcripts, *audio)


def _anchor(test_set: str, identity: str) -> str:
    """Return a name in addresses. Ids may hold any characters, and occur in several test sets."""
    return "u-" + hashlib.sha256(f"{test_set}\0{identity}".encode("utf-8", "replace")).hexdigest()[:12]


def section(
    decoded: Sequence[DecodedSet], problems: Sequence[str], experiment: Experiment, clips: AudioClips
) -> Section | str:
    """Build the section of utterances.

    Args:
        decoded: The transcripts of each test set.
        problems: What could not be read.
        experiment: The experiment.
        clips: Encodes the audio.

    Returns:
        The section, or why there is none.
    """
    folds: list[Fold] = []
    for each in decoded:
        compared = [run for run in experiment.compared if run in each.texts]
        base = experiment.base if experiment.base in each.texts else None
        chosen = groups(each, base, compared, experiment.looks)
        if any(group.chosen for group in chosen):
            found = cards(each, chosen, experiment.shown, experiment.looks, clips)
            folds.append(Fold(each.tested.name, [Cards(found)], is_open=not folds))
    if not folds:
        return "; ".join(problems) or "no utterance has an error"
    texts = [Paragraph(spans(" ".join(text.split()))) for text in (READING, clips.summary())]
    notes = [Items([spans(f"Not shown: {problem}") for problem in problems])] if problems else []
    return Section("Utterances", blocks=[*texts, *notes, *folds])
