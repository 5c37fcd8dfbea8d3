"""The records and protocols that rooms and plugins exchange. Shapes are written here, once.

Legend: B clips in a batch, P scored positions of the whole batch (clip after clip, in order), k top-k,
U support size (at most 2k), V vocabulary size. Token ids are int64, log-probabilities float32 in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE_RATE = 16_000  # Hz; of every waveform that a model, a teacher or a plugin gets


@runtime_checkable
class DistributionView(Protocol):
    """Next-token distributions at P positions, in the owner's own vocabulary, as true log-probabilities.

    A view that has a length tells P by it; of others the best tokens are counted.
    """

    vocab_size: int

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """Return ids [P, k] and their log-probabilities [P, k], best first."""

    def logprobs_at(self, ids: Tensor) -> Tensor:
        """Return log-probabilities [P, U] of ids [P, U]; `-inf` where the view does not know the value."""

    def entropy(self) -> Tensor | None:
        """Return entropies [P] in nats, or None where the view does not hold the whole distribution."""

    def at(self, rows: Tensor) -> DistributionView:
        """Return the view of positions `rows` (int64 [Q]) only."""


@runtime_checkable
class Teacher(Protocol):
    """A frozen recogniser that scores given transcripts and transcribes audio.

    `tokenizer` is a Hugging Face tokenizer and `stop_ids` the ids that end a transcript (the first is the one
    written after a transcript that was ended). One whose model is an `arkasr.SpeechLM`, kept as the attribute `lm` and
    entered by `lm(work)` only, can be sharded over ranks (`fsdp.teacher`).
    """

    tokenizer: Any
    stop_ids: Sequence[int]

    def score(
        self, waveforms: Sequence[Tensor], languages: Sequence[str], token_ids: Sequence[Sequence[int]]
    ) -> DistributionView:
        """Score transcripts under audio by teacher forcing.

        waveforms: B float32 tensors [num_samples] at 16 kHz; languages: B names ("English"), a fact of the corpus;
        token_ids: B non-empty lists of teacher token ids (the stop id last where the transcript was ended). The view
        has P = sum(len(ids)) positions: row j of a clip is the distribution of its token j given the audio and the
        tokens before j.
        """

    def transcribe(self, waveforms: Sequence[Tensor], languages: Sequence[str]) -> list[str]:
        """Transcribe B waveforms greedily."""


@dataclass
class Alignment:
    """Where student and teacher have read the same text, so that their next-token distributions compare.

    teacher_ids: B lists, what the teacher is to read. student_rows and teacher_rows: int64 [P] rows into the
    student's and the teacher's views (position-wise pairs). num_student: how many student positions there were.
    num_mismatched: clips whose teacher tokens, read back, are not the student's text.
    """

    teacher_ids: list[list[int]]
    student_rows: Tensor
    teacher_rows: Tensor
    num_student: int
    num_mismatched: int = 0


@runtime_checkable
class TokenMapper(Protocol):
    """Which student token is which teacher token, and at which positions both have read the same text."""

    def align(self, student_ids: Sequence[Sequence[int]]) -> Alignment:
        """Align B student transcripts (token ids, the stop id last where the student stopped).

        Every clip gets at least one teacher token, so that a teacher has something to score.
        """

    def to_student(self, teacher_ids: Tensor) -> Tensor:
        """Map teacher ids (any shape) to student ids; -1 where no student token is the same."""

    def to_teacher(self, student_ids: Tensor) -> Tensor:
        """Map student ids (any shape) to teacher ids; -1 where no teacher token is the same."""

    def translate(self, view: DistributionView, alignment: Alignment) -> DistributionView:
        """Return the teacher's view [sum(len(teacher_ids))] at the P aligned positions.

        Usually `view.at(alignment.teacher_rows)`. A mapper that compares tokens cut differently returns the teacher's
        distributions over another vocabulary (the student's, say); its to_student and to_teacher then map that one.
        """


@dataclass
class Support:
    """The tokens compared at each of P positions: at most U of them, in both vocabularies.

    student_ids, teacher_ids: int64 [P, U], 0 where not valid; valid: bool [P, U]; from_teacher, from_student: bool
    [P, U], which top-k set names the token (both may), False where not valid; visited_student, visited_teacher: int64
    [P], the token that the transcript holds there, the latter -1 where the teacher has no such token.
    """

    student_ids: Tensor
    teacher_ids: Tensor
    valid: Tensor
    from_teacher: Tensor
    from_student: Tensor
    visited_student: Tensor
    visited_teacher: Tensor

    @property
    def num_overlap(self) -> Tensor:
        """Tokens that both top-k sets name, int64 [P]."""
        return (self.from_teacher & self.from_student).sum(-1)


@runtime_checkable
class StudentView(DistributionView, Protocol):
    """The student's distributions with gradient, over the ids that may stand in a transcript."""

    def scores_at(self, ids: Tensor) -> Tensor:
        """Return unnormalised scores [P, U] of ids [P, U]: log-probabilities up to one constant a position."""


@runtime_checkable
class Loss(Protocol):
    """A divergence between the two at every position of a support.

    It may have an attribute `needs`: "topk" (what counts where there is none): the support is the union of both top-k
    sets; "shared": it is all tokens that the vocabularies share, in one table expanded over positions, not copied: read
    slices of it, not rows by index, and see `from_teacher` and `from_student` as those of k = V.
    """

    def __call__(self, student: StudentView, teacher: DistributionView, support: Support) -> tuple[Tensor, Tensor]:
        """Return the sum over counted positions (float32 scalar, with gradient) and their number (int64 scalar).

        The caller divides by the global number, so the result does not depend on how the batch was split.
        """
