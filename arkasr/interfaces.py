"""The records and protocols that subpackages and plugins exchange, with the shapes of all tensors.

Symbols in shapes:

- B: clips per batch.
- P: scored positions of the whole batch, clip after clip, in order.
- k: number of tokens in a top-k set.
- U: size of the support, at most 2k.
- V: size of the vocabulary.

Token ids are int64. Log-probabilities are float32, in nats. p_T and p_S are the next-token distributions of teacher
and student.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE_RATE = 16_000  # Hz, of every waveform that a model, a teacher or a plugin receives


@runtime_checkable
class DistributionView(Protocol):
    """Next-token distributions at P positions, in the vocabulary of their model, as true log-probabilities.

    If `__len__` exists it must return P. Otherwise P is taken from `topk(1)`.

    Attributes:
        vocab_size: V, the size of the model's vocabulary.
    """

    vocab_size: int

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """Return the k most probable tokens of each position.

        Args:
            k: Number of tokens per position.

        Returns:
            Ids, int64 [P, k], and their log-probabilities, float32 [P, k], in descending order.
        """

    def logprobs_at(self, ids: Tensor) -> Tensor:
        """Return the log-probabilities of given tokens.

        Args:
            ids: Token ids, int64 [P, U].

        Returns:
            Log-probabilities, float32 [P, U]. `-inf` where the view does not know the value.
        """

    def entropy(self) -> Tensor | None:
        """Return the entropy of each position.

        Returns:
            Entropies in nats, float32 [P], or None if the view does not know the whole distribution.
        """

    def at(self, rows: Tensor) -> DistributionView:
        """Return a view of some of the positions.

        Args:
            rows: Indices of the positions, int64 [Q].

        Returns:
            A view with Q positions.
        """


class Transcript(str):
    """A transcript with what its decoder knows about its end. In all other respects it is a str.

    `Teacher.transcribe` may return transcripts or plain strings. A plain string counts as "not reported".

    Args:
        text: The text.
        stopped: True if decoding ended with a stop token, False if a limit cut the transcript. None: not reported.
        looping: True if the tokens end in a repeated pattern (see `arkasr.is_looping`). None: not reported.
        num_tokens: Number of decoded tokens, the stop token included. None: not reported.
    """

    stopped: bool | None
    looping: bool | None
    num_tokens: int | None

    def __new__(
        cls, text: str, stopped: bool | None = None, looping: bool | None = None, num_tokens: int | None = None
    ) -> Transcript:
        """Create the text and set its attributes."""
        self = super().__new__(cls, text)
        self.stopped, self.looping, self.num_tokens = stopped, looping, num_tokens
        return self


@runtime_checkable
class Teacher(Protocol):
    """A frozen recogniser that scores provided transcripts and transcribes audio.

    If the model is an `arkasr.SpeechLM` in the attribute `lm`, and the teacher uses it only through `lm(work)`, it can
    be sharded over ranks (`fsdp.teacher`).

    Attributes:
        tokenizer: The Hugging Face tokenizer of the teacher.
        stop_ids: Token ids that end a transcript. The first is written after a transcript that has ended.
    """

    tokenizer: Any
    stop_ids: Sequence[int]

    def score(
        self, waveforms: Sequence[Tensor], languages: Sequence[str], token_ids: Sequence[Sequence[int]]
    ) -> DistributionView:
        """Score transcripts given their audio, by teacher forcing.

        Args:
            waveforms: B waveforms, float32 [num_samples], at 16 kHz.
            languages: B names of languages, such as "English". The corpus defines them.
            token_ids: B transcripts in the teacher's token ids. None is empty. The last id of a transcript that has
                ended is a stop token.

        Returns:
            A view with P = sum(len(ids) for ids in token_ids) positions. Row j of each clip is the distribution of
            its token j, given the audio and the tokens before j.
        """

    def transcribe(self, waveforms: Sequence[Tensor], languages: Sequence[str]) -> list[str]:
        """Transcribe audio by greedy decoding.

        Args:
            waveforms: B waveforms, float32 [num_samples], at 16 kHz.
            languages: B names of languages, such as "English".

        Returns:
            B transcripts. Return `Transcript` objects to report which are cut or looping. `arkasr label` drops those.

        Raises:
            UserError: A clip cannot be transcribed, for example because it is too long. Decoding then transcribes the
                clips of the batch one by one, and counts those that fail.
        """


@dataclass
class Alignment:
    """The positions at which student and teacher have read the same text, so that p_T and p_S can be compared.

    Attributes:
        teacher_ids: B transcripts for the teacher to score, in its token ids.
        student_rows: Rows of the student's view, int64 [P].
        teacher_rows: Rows of the teacher's view, int64 [P]. Entry i pairs with entry i of `student_rows`.
        num_student: Number of student positions, compared or not.
        num_mismatched: Number of clips whose teacher tokens do not decode to the student's text.
    """

    teacher_ids: list[list[int]]
    student_rows: Tensor
    teacher_rows: Tensor
    num_student: int
    num_mismatched: int = 0


@runtime_checkable
class TokenMapper(Protocol):
    """The correspondence of student and teacher tokens, and of the positions of their transcripts."""

    def align(self, student_ids: Sequence[Sequence[int]]) -> Alignment:
        """Align transcripts of the student with the teacher's tokens.

        Args:
            student_ids: B transcripts in the student's token ids. The last id is a stop token if the student stopped.

        Returns:
            The alignment. Every clip has at least one teacher token, so that the teacher has something to score.
        """

    def to_student(self, teacher_ids: Tensor) -> Tensor:
        """Map teacher ids to student ids.

        Args:
            teacher_ids: Token ids, int64, any shape.

        Returns:
            Student ids of the same shape, -1 where no student token is equivalent.
        """

    def to_teacher(self, student_ids: Tensor) -> Tensor:
        """Map student ids to teacher ids.

        Args:
            student_ids: Token ids, int64, any shape.

        Returns:
            Teacher ids of the same shape, -1 where no teacher token is equivalent.
        """

    def translate(self, view: DistributionView, alignment: Alignment) -> DistributionView:
        """Return the teacher's distributions at the aligned positions.

        Usually this is `view.at(alignment.teacher_rows)`. A mapper for tokenizers that cut text differently may return
        the teacher's distributions over another vocabulary, for example the student's. Its `to_student` and
        `to_teacher` then map that vocabulary.

        Args:
            view: The teacher's view, with one position per id in `alignment.teacher_ids`.
            alignment: Return value of `align`.

        Returns:
            A view with P positions, one per entry of `alignment.teacher_rows`.
        """


@dataclass
class Support:
    """The tokens to compare at each of P positions, in both vocabularies: the support U_t, padded to U tokens.

    Attributes:
        student_ids: Student ids, int64 [P, U], 0 where not valid.
        teacher_ids: Teacher ids, int64 [P, U], 0 where not valid.
        valid: Whether the entry belongs to U_t, bool [P, U].
        from_teacher: Whether the teacher's top-k set contains the token, bool [P, U], False where not valid.
        from_student: Whether the student's top-k set contains the token, bool [P, U], False where not valid.
        visited_student: Student id of the transcript's token at the position, int64 [P].
        visited_teacher: Teacher id of the same token, int64 [P], -1 if the teacher has no such token.
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
        """Number of tokens that are in both top-k sets, int64 [P]."""
        return (self.from_teacher & self.from_student).sum(-1)


@runtime_checkable
class StudentView(DistributionView, Protocol):
    """The student's distributions with gradient, over the ids that are allowed in a transcript."""

    def scores_at(self, ids: Tensor) -> Tensor:
        """Return unnormalised scores of given tokens: log-probabilities plus one constant per position.

        Args:
            ids: Token ids, int64 [P, U].

        Returns:
            Scores, float32 [P, U], with gradient.
        """


@runtime_checkable
class Loss(Protocol):
    """A divergence between p_T and p_S at every position, on a support.

    A loss may have the attribute `needs`, which selects the support:

    - "topk" (also if the attribute is absent): the union of both top-k sets.
    - "shared": all tokens that both vocabularies have. The table is expanded over positions and not copied, so read
      slices of it and do not index rows. `from_teacher` and `from_student` are those of k = V.
    """

    def __call__(self, student: StudentView, teacher: DistributionView, support: Support) -> tuple[Tensor, Tensor]:
        """Return the loss as a sum and a count.

        The caller divides by the global count, so the result does not depend on how the batch was split.

        Args:
            student: The student's view, P positions, with gradient.
            teacher: The teacher's view at the same positions.
            support: The tokens to compare.

        Returns:
            The sum over the counted positions, float32 scalar with gradient, and the number of counted positions,
            int64 scalar.
        """
