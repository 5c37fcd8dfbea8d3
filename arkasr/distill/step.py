"""Algorithm 1 of the paper (arXiv 2605.28139) for one audio batch: one step of on-policy distillation (OPD).

The comments `# line 1` to `# line 7` mark where the lines of the algorithm are computed:

1. Generate transcripts with the student, without gradient.
2. Convert them to the teacher's tokens. The teacher's prompt takes the language from the batch.
3. Run the teacher on the audio and these tokens (teacher forcing).
4. Collect the teacher's top-k tokens and log-probabilities.
5. Score the same transcripts with the student, with gradient.
6. Build the union U_t of both top-k sets. It needs no gradient, so it is built before line 5.
7. Compute the loss on U_t, by default tau^2 KL(p_T || p_S), equation (1). The trainer takes the optimizer step.

`Opd.collect` contains lines 1 to 4 and 6, `Opd.rescore` lines 5 and 7. On a GPU, lines 3, 4 and 6 of a teacher in this
process run beside line 5 (see `side_stream`).
"""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from arkasr.config.schema import DistillConfig, RolloutConfig
from arkasr.data.batches import Batch
from arkasr.data.waveforms import Waveforms
from arkasr.distill.metrics import diagnostic_sums, position_groups, rollout_sums, support_sums, teacher_sums
from arkasr.distill.rollout import Rollout, draw_sources, roll_out
from arkasr.distill.side_stream import SideStream, side_stream
from arkasr.distill.support import (
    drop_missing_positions,
    published_candidates,
    shared_support,
    shared_tokens,
    union_support,
)
from arkasr.distill.vuss import VussGroups
from arkasr.distributions.views import HeadView
from arkasr.errors import UserError
from arkasr.interfaces import DistributionView, Loss, Support, Teacher, TokenMapper
from arkasr.model.dropout import drops_audio, without_dropout
from arkasr.model.sharding import gathered
from arkasr.model.spec_augment import SpecAugment
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.utils.console import log
from arkasr.utils.devices import to_device
from arkasr.utils.timing import Phases


@dataclass
class ScoredRollout:
    """One micro-batch after lines 1 to 4 and 6: what the student is scored on.

    Attributes:
        batch: The clips, one entry per transcript. A clip with several transcripts occurs several times.
        rollout: The transcripts.
        student_rows: Positions of the student that are scored, int64 [P].
        teacher_view: The teacher's distributions at these P positions.
        support: The union support at these P positions.
        sums: Metric sums of this micro-batch, as `arkasr.distill.metrics` names them. Tensors are on the device:
            `metrics.read_sums` reads all of them at once.
        side: The stream of the last three. Call `side.join()` before you use them, as `Opd.rescore` does.
    """

    batch: Batch
    rollout: Rollout
    student_rows: Tensor
    teacher_view: DistributionView
    support: Support
    sums: dict[str, Tensor | float]
    side: SideStream = field(default_factory=SideStream)


@dataclass
class Opd:
    """On-policy distillation of a student from a teacher.

    Attributes:
        teacher: The frozen teacher.
        mapper: Maps tokens and positions between student and teacher.
        loss: The loss on the support.
        rollout: Section `rollout` of the configuration.
        distill: Section `distill` of the configuration.
        masks: Hides parts of the features in the student's pass with gradient (line 5). The rollout and the teacher
            read the clip without masks. None hides nothing.
    """

    teacher: Teacher
    mapper: TokenMapper
    loss: Loss
    rollout: RolloutConfig
    distill: DistillConfig
    masks: SpecAugment | None = None
    _shared: tuple[Tensor, Tensor] | None = field(default=None, init=False, repr=False)
    _side: SideStream | None = field(default=None, init=False, repr=False)
    _groups: VussGroups | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self._needs not in ("topk", "shared"):
            name = type(self.loss).__name__
            raise UserError(f"loss {name}: its attribute `needs` must be 'topk' or 'shared', got {self._needs!r}")

    @property
    def _needs(self) -> str:
        return getattr(self.loss, "needs", "topk")

    def collect(self, student: SpeechLM, batch: Batch, phases: Phases) -> ScoredRollout:
        """Run lines 1 to 4 and 6: rollout, alignment, teacher scores and union support.

        Args:
            student: The student. Only its audio encoder runs with gradient, and without one if there are masks or if
                the encoder has dropout. Dropout is off.
            batch: B clips with reference texts.
            phases: Timer that receives the phases `rollout` and `teacher`.

        Returns:
            The micro-batch for `rescore`, and its metric sums.

        Raises:
            UserError: The teacher or the mapper returned a wrong number of positions.
        """
        k, num_clips = self.distill.top_k, len(batch.waveforms)
        self._side = side = self._side or side_stream(self.teacher, student)
        batch = replace(batch, waveforms=Waveforms.of(batch.waveforms))  # copied to the device once for both models
        provided = self._provided_texts(batch, phases)
        clips, inputs = batch, (batch.waveforms, batch.languages, batch.texts)
        with_gradient = not self._encodes_twice(student) and torch.is_grad_enabled()
        with phases("rollout"), gathered(student), torch.set_grad_enabled(with_gradient), without_dropout(student):
            rollout = student(lambda lm: roll_out(lm, *inputs, self.rollout, k, provided))  # line 1
            batch = batch.select(rollout.kept)
        token_ids = rollout.generation.ids
        alignment = self.mapper.align(token_ids)  # line 2
        if not rollout.scored:
            alignment.student_rows, alignment.teacher_rows = alignment.student_rows[:0], alignment.teacher_rows[:0]
        student_rows = to_device(alignment.student_rows, student.device)
        with side.beside(clips, batch, rollout, student_rows), phases("teacher"), torch.no_grad():
            scores = self.teacher.score(batch.waveforms, batch.languages, alignment.teacher_ids)  # line 3
            _check_positions(f"teacher {type(self.teacher).__name__}", scores, sum(map(len, alignment.teacher_ids)))
            view = self.mapper.translate(scores, alignment)
            _check_positions(f"mapper {type(self.mapper).__name__}", view, len(student_rows))
            best, logprobs = view.topk(k)  # line 4 (union_support maps the ids to student ids)
            candidates = rollout.generation.topk[student_rows]
            visited = to_device([i for ids in token_ids for i in ids], student.device, torch.long)[student_rows]
            support = self._support(student, best, candidates, visited)  # line 6
            support = drop_missing_positions(support, logprobs)
            sums: dict[str, Tensor | float] = {
                **support_sums(support, min(k, best.shape[1], candidates.shape[1])),
                **rollout_sums(rollout, alignment, num_clips),
                **teacher_sums(view, logprobs, support),
            }
        return ScoredRollout(batch, rollout, student_rows, view, support, sums, side)

    def _support(self, student: SpeechLM, best: Tensor, topk: Tensor, visited: Tensor) -> Support:
        """Build the union of both sides, see `distill.candidates`."""
        if self.distill.candidates == "topk":
            return union_support(best, topk, visited, self.mapper)
        ids, chosen = published_candidates(topk, visited, student.stop_ids)
        return union_support(best, ids, visited, self.mapper, chosen)

    def _provided_texts(self, batch: Batch, phases: Phases) -> dict[int, tuple[str, str]]:
        """Draw the source of each clip and return clip index -> (source, text) for clips that are not rolled out.

        Clips are absent, so that the student transcribes them, if their text is empty, or if the teacher's transcript
        is cut or looping: such a transcript must not be followed by a stop token.
        """
        sources = draw_sources(self.distill.mix, len(batch.waveforms))
        texts = {i: batch.texts[i] for i, source in enumerate(sources) if source == "reference"}
        if self.distill.mix.get("teacher", 0.0) > 0:  # on all ranks, since all gather a sharded teacher
            clips = [i for i, source in enumerate(sources) if source == "teacher"]
            with phases("teacher"), gathered(getattr(self.teacher, "lm", None)):
                texts |= zip(clips, self._teacher_transcripts(batch.select(clips)), strict=True)
        return {i: (sources[i], text) for i, text in texts.items() if text.strip()}

    def _teacher_transcripts(self, batch: Batch) -> list[str]:
        """Transcribe with the teacher. Cut and looping transcripts become empty."""
        texts = self.teacher.transcribe(batch.waveforms, batch.languages) if batch.ids else []
        faulty = [getattr(t, "stopped", None) is False or getattr(t, "looping", None) is True for t in texts]
        if any(faulty):
            share = f"{sum(faulty)} of {len(texts)}"
            log(f"{share} transcripts of the teacher are cut or looping; the student's are scored instead", True)
        return ["" if is_faulty else text for text, is_faulty in zip(texts, faulty)]

    def rescore(self, student: SpeechLM, scored: ScoredRollout, diagnose: bool = False) -> tuple[Tensor, Tensor]:
        """Run lines 5 and 7: score the same transcripts with gradient, and compute the loss on the support.

        Without masks and without dropout in the encoder, the audio is not encoded again. Its autograd graph comes from
        the rollout, so you can call this method once per `collect`.

        Args:
            student: The student.
            scored: The result of `collect`.
            diagnose: Also add the metrics that need the student's full distributions to `scored.sums`.

        Returns:
            The sum of the loss over counted positions (float32 scalar, with gradient) and their number (int64
            scalar).
        """
        kept = scored.rollout.kept
        languages = dict(zip(kept, scored.batch.languages, strict=True))  # one entry per clip

        def work(lm: SpeechLM) -> tuple[Tensor, Tensor]:
            audio = self._audio(lm, scored, [*languages])
            prompts = dict(zip(languages, lm.embed_prompts(audio, [*languages.values()])))
            states = lm.transcript_states([prompts[i] for i in kept], scored.rollout.generation.ids)  # line 5
            states = states[scored.student_rows]
            scored.side.join()
            if diagnose:
                scored.sums |= self._diagnose(lm, HeadView(states.detach(), lm.head.detach(), lm.blocked), scored)
            support = self._loss_support(lm, scored.support)
            return self.loss(HeadView(states, lm.head, lm.blocked), scored.teacher_view, support)  # line 7

        result: tuple[Tensor, Tensor] = student(work)
        return result

    def _encodes_twice(self, lm: SpeechLM) -> bool:
        """Return whether the pass with gradient reads other audio embeddings than the rollout."""
        return self.masks is not None or drops_audio(lm)

    def _audio(self, lm: SpeechLM, scored: ScoredRollout, clips: list[int]) -> list[Tensor]:
        """Return the audio tokens of clips of the batch, with gradient: those of the rollout, or new ones."""
        if not self._encodes_twice(lm):
            return [scored.rollout.audio[i] for i in clips]
        waveforms = Waveforms.of(scored.batch.waveforms).select([scored.rollout.kept.index(i) for i in clips])
        return lm.encode_audio(waveforms, self.masks)

    def _loss_support(self, lm: SpeechLM, support: Support) -> Support:
        if self._needs == "topk":
            return support
        if self._shared is None:
            self._shared = shared_tokens(len(lm.blocked), lm.device, self.mapper)
        return shared_support(*self._shared, support.visited_student, self.mapper)

    def _diagnose(self, lm: SpeechLM, view: HeadView, scored: ScoredRollout) -> dict[str, Tensor | float]:
        token_ids, languages = scored.rollout.generation.ids, scored.batch.languages
        self._groups = self._groups or VussGroups.of(lm)
        vuss = self._groups.sums(scored.rollout, scored.batch.texts, languages, scored.student_rows, scored.support)
        groups = position_groups(token_ids, languages, scored.student_rows, lm.stop_ids)
        stops = sorted({*self.mapper.to_teacher(torch.tensor(lm.stop_ids)).tolist()} - {-1})
        stop_ids = to_device(stops, lm.device, torch.long)
        return {**vuss, **diagnostic_sums(view, scored.teacher_view, scored.support, groups, stop_ids)}


def _check_positions(owner: str, view: DistributionView, expected: int) -> None:
    """Reject a view with a wrong number of positions, whose rows would be compared with other positions."""
    found = len(view) if isinstance(view, Sized) else len(view.topk(1)[0])
    if found != expected:
        raise UserError(
            f"{owner}: returned {found} positions, expected {expected}; `score` returns one position per teacher token "
            "and `translate` one per aligned pair; check the plugin with arkasr.testing"
        )
