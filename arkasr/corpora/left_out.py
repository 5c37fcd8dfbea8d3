"""The key `left_out` of corpus.yaml: speakers that no model is trained on, who form test sets of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from arkasr.corpora.set_rows import Scanned, SetRows
from arkasr.errors import UserError

LEFT_OUT = "of a speaker who is left out"  # the reason of utterances of dev and test parts
_MOST_NAMED = 10


@dataclass
class LeftOut:
    """Decides which utterances of a part belong to a set.

    1. Utterances of training parts belong to the test set that names their speaker, or else to `train`.
    2. Utterances of dev and test parts whose speaker is left out are dropped and counted. So the voices of the other
       test sets are those of training, if they were before.

    Attributes:
        sets: Names of speakers by name of the test set.
    """

    sets: Mapping[str, Sequence[str]]
    _owner: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self._owner = {speaker: name for name, speakers in self.sets.items() for speaker in speakers}

    def place(self, name: str, scanned: Scanned) -> Scanned | None:
        """Return an utterance as it belongs to a set.

        Args:
            name: Name of the set.
            scanned: An utterance of one of its parts.

        Returns:
            The utterance, perhaps with the reason for which it is dropped. None if it belongs to another set.
        """
        owner = self._owner.get(scanned.entry.speaker or "", "")
        if name in self.sets or name == "train":
            return scanned if owner == (name if name in self.sets else "") else None
        if owner and not scanned.entry.reason:
            return scanned._replace(entry=replace(scanned.entry, reason=LEFT_OUT), row=None)
        return scanned

    def require_speakers(self, where: Path, sets: Mapping[str, SetRows]) -> None:
        """Check that every speaker that is left out has utterances.

        Args:
            where: The corpus.yaml, for the message.
            sets: All sets, filled.

        Raises:
            UserError: A speaker has no usable utterance in the training parts.
        """
        for name, speakers in self.sets.items():
            found = sets[name].totals.speakers
            missing = [speaker for speaker in speakers if speaker not in found]
            if missing:
                others = sorted(sets["train"].totals.speakers)
                known = ", ".join(others[:_MOST_NAMED]) + (", ..." if len(others) > _MOST_NAMED else "") or "unnamed"
                raise UserError(
                    f"{where}: left_out.{name}: speaker {missing[0]} has no usable utterance in the training parts, "
                    f"whose other speakers are {known}; correct the name"
                )
