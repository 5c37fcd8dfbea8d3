"""`check_teacher` rejects teachers that break one promise: a correct teacher with one line changed."""

from __future__ import annotations

import re

import pytest
import torch
from kit import PluginError, failure_message
from torch import nn

from arkasr.distributions.views import DenseView
from arkasr.errors import UserError
from arkasr.interfaces import Transcript
from arkasr.testing import TableView, check_teacher
from arkasr.testing.tiny import teacher_tokenizer
from arkasr.testing.views import check_view


class GoodTeacher:
    """A teacher without a network. Its scores depend on the energy of the audio and, with decay, on earlier tokens."""

    def __init__(self):
        self.tokenizer = teacher_tokenizer()
        self.stop_ids = [self.tokenizer.convert_tokens_to_ids("<|im_end|>")]
        generator = torch.Generator().manual_seed(0)
        self.table = torch.randn(len(self.tokenizer) + 1, len(self.tokenizer), generator=generator)
        self.voice = torch.randn(len(self.tokenizer), generator=generator)

    def before(self, ids):
        return [-1, *ids[:-1]]

    def read(self, ids):
        steps = torch.arange(len(ids))
        return (0.5 ** (steps[:, None] - steps)).tril() @ self.table[self.before(ids)]

    def logits(self, waveforms, token_ids):
        energies = [w.square().mean() for w in waveforms]
        return torch.cat([self.read(ids) + e * self.voice for ids, e in zip(token_ids, energies)])

    def score(self, waveforms, languages, token_ids):
        return DenseView(self.logits(waveforms, token_ids))

    def transcribe(self, waveforms, languages):
        return [f"{len(w)}" for w in waveforms]


class View(DenseView):
    """A dense view whose `at` returns the same class."""

    def at(self, rows):
        return type(self)(self.logits[rows])


class Raw(View):
    def topk(self, k):
        best = self.logits.topk(min(k, self.vocab_size))
        return best.indices, best.values

    logprobs_at = DenseView.scores_at

    def entropy(self):
        return None


class LowLogits(Raw):
    """Logits so low that their exponentials sum to less than 1."""

    def __init__(self, logits):
        super().__init__(logits - 100)


class HalfMass(View):
    def topk(self, k):
        ids, values = super().topk(k)
        return ids, values - 0.7

    def logprobs_at(self, ids):
        return super().logprobs_at(ids) - 0.7

    def entropy(self):
        return None


class Half(View):
    def topk(self, k):
        ids, values = super().topk(k)
        return ids, values.half()


class Narrow(View):
    def topk(self, k):
        ids, values = super().topk(k)
        return ids.int(), values


class Unsorted(View):
    def topk(self, k):
        return tuple(part.flip(-1) for part in super().topk(k))


class Repeated(View):
    def topk(self, k):
        return tuple(part[:, [0, *range(part.shape[1] - 1)]] for part in super().topk(k))


class TooFew(View):
    def topk(self, k):
        return super().topk(min(k, 3))


class OutOfRange(View):
    def topk(self, k):
        ids, values = super().topk(k)
        return ids + self.vocab_size, values


class Shifted(View):
    def logprobs_at(self, ids):
        return super().logprobs_at(ids) - 0.1


class NotANumber(View):
    def topk(self, k):
        ids, values = super().topk(k)
        return ids, values.masked_fill(ids == ids[0, 0], torch.nan)


class EntropyInBits(View):
    def entropy(self):
        return super().entropy() / 0.6931


class LongEntropy(View):
    def entropy(self):
        return super().entropy()[:, None]


class Partial(View):
    """Knows its best 40 tokens, but returns an entropy."""

    known = 40

    def topk(self, k):
        return tuple(part[:, : self.known] for part in super().topk(k))

    def logprobs_at(self, ids):
        floor = super().topk(self.known)[1][:, -1:]
        found = super().logprobs_at(ids)
        return found.masked_fill(found < floor, -torch.inf)


class PartialWithoutEntropy(Partial):
    """Knows its best 40 tokens, and returns no entropy."""

    def entropy(self):
        return None


class SortedRows(View):
    def at(self, rows):
        return super().at(rows.sort().values)


class RaisingAt(View):
    def at(self, rows):
        if len(rows) == 0:
            raise PluginError("nothing to do")
        return super().at(rows)


def teacher_with_view(view):
    class Teacher(GoodTeacher):
        def score(self, waveforms, languages, token_ids):
            return view(self.logits(waveforms, token_ids))

    return Teacher()


@pytest.mark.parametrize("view", [View, PartialWithoutEntropy])
def test_check_teacher_accepts_correct_teacher(view):
    check_teacher(teacher_with_view(view), language="Chinese")


@pytest.mark.parametrize(
    ("view", "sentence"),
    [
        (Raw, r"sum to [\d.e+]+, above 1; return log-probabilities, not raw logits"),
        (
            LowLogits,
            r"all \d+ tokens of one position have a value, but their probabilities sum to .*e-\d+; .* not raw logits",
        ),
        (HalfMass, r"all \d+ tokens of one position have a value, but their probabilities sum to 0\.49"),
        (Half, r"log-probabilities are float16 \[\d+, 1\]; they must be float32"),
        (Narrow, "topk returns ids int32"),
        (Unsorted, "not sorted"),
        (Repeated, "returns the same id twice"),
        (TooFew, r"topk\(5\) with vocab_size \d+ returns 3 tokens"),
        (OutOfRange, "outside of 0 to"),
        (Shifted, "logprobs_at differs from topk"),
        (NotANumber, "is NaN"),
        (EntropyInBits, "entropy differs from -sum p log p in nats"),
        (LongEntropy, r"entropy returns float32 \[\d+, 1\]"),
        (Partial, "entropy returns values, but .* sum to 0"),
        (SortedRows, r"at\(\[\d+, 0, 0\]\) returns a view of other rows"),
        (RaisingAt, r"at\(\[\]\) raises PluginError: nothing to do"),
    ],
)
def test_check_teacher_rejects_broken_view(view, sentence):
    assert re.search(sentence, failure_message(check_teacher, teacher_with_view(view)))


def test_check_view_accepts_missing_mass_only_with_drops_or_unknown_values():
    half = TableView(torch.randn(3, 9).log_softmax(-1) - 0.7)
    check_view("check", half, 3, 1e-4, drops=True)
    with pytest.raises(AssertionError, match="check: all 9 tokens of one position have a value"):
        check_view("check", half, 3, 1e-4)
    some = TableView(half.table.masked_fill(torch.arange(9) == 4, -torch.inf))
    check_view("check", some, 3, 1e-4)  # the value of one token is not known


class WithoutStop(GoodTeacher):
    def __init__(self):
        super().__init__()
        self.stop_ids = []


class OneRowShort(GoodTeacher):
    def logits(self, waveforms, token_ids):
        return super().logits(waveforms, token_ids)[:-1]


class NoView(GoodTeacher):
    def score(self, *arguments):
        return self.logits(arguments[0], arguments[2])


class Padded(GoodTeacher):
    """The longest clip of the batch changes the scores of the others."""

    def logits(self, waveforms, token_ids):
        return super().logits(waveforms, token_ids) + 1e-6 * max(map(len, waveforms)) * self.voice


class SortedByLength(GoodTeacher):
    """Returns the clips in the order of their length."""

    def logits(self, waveforms, token_ids):
        pairs = sorted(zip(waveforms, token_ids), key=lambda pair: len(pair[0]))
        return super().logits(*zip(*pairs))


class ReadsCurrent(GoodTeacher):
    """Row j depends on token j."""

    def before(self, ids):
        return list(ids)


class SkipsPrevious(GoodTeacher):
    """Row j does not depend on token j - 1."""

    def before(self, ids):
        return [-1, -1, *ids[:-2]][: len(ids)]


class ReadsLast(GoodTeacher):
    """All rows from the fourth on depend on the last token."""

    def read(self, ids):
        late = torch.arange(len(ids))[:, None] >= 3
        return super().read(ids) + late * self.table[ids[-1]]


class ReadsNext(GoodTeacher):
    """Row j also depends on token j + 1, from the fourth row on."""

    def read(self, ids):
        visible = [*self.before(ids)[:3], *[*ids, ids[-1]][4:]]
        return super().read(ids) + 0.1 * self.table[visible[: len(ids)]]


class Bigram(GoodTeacher):
    """Row j depends only on token j - 1."""

    def read(self, ids):
        return self.table[self.before(ids)]


class Trigram(GoodTeacher):
    """Row j depends only on tokens j - 2 and j - 1."""

    def read(self, ids):
        before = self.before(ids)
        return self.table[before] + 0.5 * self.table[[-1, *before[:-1]]]


class IgnoresAudio(GoodTeacher):
    def logits(self, waveforms, token_ids):
        return super().logits([torch.zeros(1600) for _ in waveforms], token_ids)


class Random(GoodTeacher):
    def logits(self, waveforms, token_ids):
        logits = super().logits(waveforms, token_ids)
        return logits + 0.1 * torch.randn_like(logits)


class Trainable(GoodTeacher):
    def __init__(self):
        super().__init__()
        self.parts = {"head": nn.Linear(2, 2)}


class WithGradient(GoodTeacher):
    def __init__(self):
        super().__init__()
        self.table.requires_grad_()


class ChangesIds(GoodTeacher):
    def score(self, waveforms, languages, token_ids):
        view = super().score(waveforms, languages, token_ids)
        token_ids[0].append(0)
        return view


class ChangesWaveforms(GoodTeacher):
    def score(self, waveforms, languages, token_ids):
        view = super().score(waveforms, languages, token_ids)
        waveforms[0].mul_(2)
        return view


class OneText(GoodTeacher):
    def transcribe(self, waveforms, languages):
        return ["the sea"]


class Pairs(GoodTeacher):
    def transcribe(self, waveforms, languages):
        return [("the sea", 0.5) for _ in waveforms]


class Sampling(GoodTeacher):
    """Samples its texts."""

    def transcribe(self, waveforms, languages):
        return [f"{torch.rand(()):.6f}" for _ in waveforms]


class BatchDependent(GoodTeacher):
    """The longest clip of the batch changes the texts of the others."""

    def transcribe(self, waveforms, languages):
        return [f"{len(w)} of {max(map(len, waveforms))}" for w in waveforms]


class NoTranscribe(GoodTeacher):
    transcribe = None


class RaisingTranscribe(GoodTeacher):
    def transcribe(self, waveforms, languages):
        raise PluginError(languages[0])


@pytest.mark.parametrize(
    ("teacher", "sentence"),
    [
        (WithoutStop, r"stop_ids is \[\]; it must have at least one id"),
        (OneRowShort, r"int64 \[\d+, 1\]; they must be int64 \[\d+, 1\], one row per position"),
        (NoView, "float32 .* is not a DistributionView"),
        (Padded, "alone and in a batch differ"),
        (SortedByLength, "alone and in a batch differ"),
        (ReadsCurrent, "depends on token j or later tokens"),
        (SkipsPrevious, "does not depend on token j - 1"),
        (ReadsLast, "depends on token j or later tokens"),
        (ReadsNext, "depends on token j or later tokens"),
        (Bigram, "rows 4 to 8 do not depend on token 1"),
        (Trigram, "rows 4 to 8 do not depend on token 1"),
        (IgnoresAudio, "the scores do not depend on the waveforms"),
        (Random, "two scores of the same clips differ"),
        (Trainable, "parameters weight, bias require a gradient; the teacher must be frozen"),
        (WithGradient, "the scores require a gradient"),
        (ChangesIds, "score changes the waveforms or token ids"),
        (ChangesWaveforms, "score changes the waveforms or token ids"),
        (OneText, "a list of 4 str"),
        (Pairs, "'tuple'"),
        (Sampling, r"different texts for the same clips \('0\.\d+' and '0\.\d+'\); it must decode greedily"),
        (BatchDependent, r"different texts for a clip in a batch and alone \('1600 of 17600' and '1600 of 1600'\)"),
        (NoTranscribe, "raises TypeError|lacks"),
        (RaisingTranscribe, "transcribe raises PluginError: English"),
    ],
)
def test_check_teacher_rejects_broken_teacher(teacher, sentence):
    assert re.search(sentence, failure_message(check_teacher, teacher()))


class Coarse(GoodTeacher):
    def logits(self, waveforms, token_ids):
        """Round more coarsely in a larger batch."""
        step = 0.002 * len(waveforms)
        return (super().logits(waveforms, token_ids) / step).round() * step


def test_check_teacher_tolerance_accepts_rounding():
    assert "alone and in a batch" in failure_message(check_teacher, Coarse())
    check_teacher(Coarse(), tolerance=0.02)


@pytest.mark.parametrize(("texts", "passes"), [(BatchDependent, True), (Sampling, False)])
def test_texts_may_depend_on_batch_but_not_on_chance_with_wide_tolerance(texts, passes):
    teacher = type("", (texts, Coarse), {})()
    if passes:
        check_teacher(teacher, tolerance=0.02)
    else:
        assert "different texts for the same clips" in failure_message(check_teacher, teacher, tolerance=0.02)


def test_texts_may_differ_between_calls_if_scores_do():
    """A server that batches requests may behave like this."""

    class Server(Sampling):
        calls = 0

        def logits(self, waveforms, token_ids):
            self.calls += 1
            return super().logits(waveforms, token_ids) * (1 + 0.001 * (self.calls % 2))

    check_teacher(Server(), tolerance=0.02)


def test_check_teacher_makes_few_calls():
    """Calls to a remote teacher are slow, so all changes to one clip are scored in one call."""
    calls = {"score": [], "transcribe": []}

    class Remote(GoodTeacher):
        def score(self, waveforms, languages, token_ids):
            calls["score"].append(len(waveforms))
            return super().score(waveforms, languages, token_ids)

        def transcribe(self, waveforms, languages):
            calls["transcribe"].append(len(waveforms))
            return super().transcribe(waveforms, languages)

    check_teacher(Remote())
    assert calls == {"score": [4, 4, 1, 1, 1, 1, 6, 4], "transcribe": [4, 4, 1, 1, 1, 1]}


def test_check_teacher_rejects_object_that_is_no_teacher():
    assert "lacks" in failure_message(check_teacher, object())


class OnlyTranscribes:
    """A teacher for stage 2, such as a service that returns texts."""

    tokenizer, stop_ids = None, [0]

    def score(self, waveforms, languages, token_ids):
        raise UserError("this teacher only transcribes")

    def transcribe(self, waveforms, languages):
        return [Transcript(f"{len(w)} samples", stopped=True) for w in waveforms]


def test_teacher_that_only_transcribes_passes_without_scores():
    check_teacher(OnlyTranscribes(), scores=False)


@pytest.mark.parametrize("end", ["stop", 1, "length"])
def test_transcript_with_another_type_of_end_is_refused(end):
    class Odd(OnlyTranscribes):
        def transcribe(self, waveforms, languages):
            return [Transcript("a", stopped=end) for _ in waveforms]

    with pytest.raises(AssertionError, match=r"must be True, False or None"):
        check_teacher(Odd(), scores=False)
