"""VUSS by place in the transcript, and at correct and wrong words of the student's own transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from arkasr.distill.rollout_words import GROUPS, word_groups
from arkasr.errors import UserError
from arkasr.interfaces import Support
from arkasr.model.tokenization import token_bytes
from arkasr.utils.console import log
from arkasr.utils.devices import to_device

if TYPE_CHECKING:
    from arkasr.distill.rollout import Rollout  # not imported at run time: it imports the model code
    from arkasr.model.speech_lm.auto import SpeechLM

DECILES = 10
COUNT = "positions/"  # metrics that are counts


def token_deciles(ids: Sequence[Sequence[int]]) -> list[int]:
    """Return the tenth of its transcript that each token is in.

    Args:
        ids: Token ids of B transcripts.

    Returns:
        floor(10 j / L) of token j of a transcript of length L, transcript after transcript.
    """
    return [DECILES * j // len(row) for row in ids for j in range(len(row))]


def vuss_sums(support: Support, deciles: Tensor, words: Tensor) -> dict[str, Tensor]:
    """Sum the valid union support size |U_t| (paper, section 4.3) over groups of counted positions.

    Nothing is read from the device.

    Args:
        support: The union support of P positions. Those with at least two valid tokens are counted.
        deciles: Tenth of its transcript that each position is in, int64 [P].
        words: Index into `rollout_words.GROUPS` of each position, int64 [P].

    Returns:
        Sums `vuss/decile_<d>`, `vuss/correct_word` and `vuss/wrong_word`, their counts with `#` behind the name, and
        the number of counted positions of each group, `positions/<group>`, as float64 scalars.
    """
    sizes = support.valid.sum(-1).double()
    groups = (*(f"decile_{d}" for d in range(DECILES)), *GROUPS)
    numbers = torch.cat([torch.arange(DECILES, device=sizes.device), torch.arange(len(GROUPS), device=sizes.device)])
    members = torch.cat([deciles.expand(DECILES, -1), words.expand(len(GROUPS), -1)]) == numbers[:, None]
    members &= sizes >= 2
    counts, totals = members.sum(-1, dtype=torch.double), (members * sizes).sum(-1)
    sums = {}
    for name, count, total in zip(groups, counts.unbind(), totals.unbind(), strict=True):
        if name in GROUPS:
            sums[COUNT + name] = count
        if name not in GROUPS[2:]:
            sums |= {f"vuss/{name}": total, f"vuss/{name}#": count}
    return sums


@dataclass
class VussGroups:
    """The groups of tokens of a student's transcripts.

    Attributes:
        bytes_of: The bytes of each token id, see `arkasr.model.tokenization.token_bytes`. None: they are unknown, so
            that all tokens are in the group `no_word`.
    """

    bytes_of: list[bytes | None] | None

    @classmethod
    def of(cls, student: SpeechLM) -> VussGroups:
        """Return the groups for the tokenizer of a student. A tokenizer without known bytes is logged.

        Args:
            student: The student.

        Returns:
            The groups.
        """
        try:
            return cls(token_bytes(student.tokenizer))
        except UserError as error:
            log(f"warning: {error} (so vuss/correct_word and vuss/wrong_word are not measured)")
            return cls(None)

    def sums(
        self, rollout: Rollout, references: Sequence[str], languages: Sequence[str], rows: Tensor, support: Support
    ) -> dict[str, Tensor]:
        """Compute `vuss_sums` of one micro-batch.

        Args:
            rollout: B transcripts.
            references: B reference texts, blank if there is none.
            languages: B names of languages.
            rows: The scored positions, int64 [P], as rows into all tokens of the B transcripts.
            support: The union support at these positions.

        Returns:
            See `vuss_sums`.
        """
        ids = rollout.generation.ids
        words = [[GROUPS.index("no_word")] * len(row) for row in ids]
        if self.bytes_of is not None:
            data = [[self.bytes_of[i] or b"" if i < len(self.bytes_of) else b"" for i in row] for row in ids]
            words = word_groups(data, references, languages, rollout.sources)
        flat = [group for row in words for group in row]
        deciles, groups = (to_device(values, rows.device, torch.long)[rows] for values in (token_deciles(ids), flat))
        return vuss_sums(support, deciles, groups)
