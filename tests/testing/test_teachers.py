"""Each check of a teacher catches a teacher that breaks one promise, a good one with a single line changed."""

from __future__ import annotations

import re

import pytest
import torch
from kit import Loud, caught
from torch import nn

from arkasr.distributions.views import DenseView
from arkasr.testing import TableView, check_teacher
from arkasr.testing.tiny import teacher_tokenizer
from arkasr.testing.views import check_view


class Good:
    """A teacher without a network: what follows depends on the audio's energy and, less and less, on tokens before."""

    def __init__(self):
        self.tokenizer = teacher_tokenizer()
        self.stop_ids = [self.tokenizer.convert_tokens_to_ids("<|im_end|>")]
        draw = torch.Generator().manual_seed(0)
        self.table = torch.randn(len(self.tokenizer) + 1, len(self.tokenizer), generator=draw)
        self.voice = torch.randn(len(self.tokenizer), generator=draw)

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
    """A dense view whose parts stay of their class."""

    def at(self, rows):
        return type(self)(self.logits[rows])


class Raw(View):
    def topk(self, k):
        best = self.logits.topk(min(k, self.vocab_size))
        return best.indices, best.values

    logprobs_at = DenseView.scores_at
    entropy = lambda self: None


class Sunk(Raw):
    """Logits so low that they sum to less than 1."""

    def __init__(self, logits):
        super().__init__(logits - 100)


class HalfMass(View):
    def topk(self, k):
        ids, values = super().topk(k)
        return ids, values - 0.7

    def logprobs_at(self, ids):
        return super().logprobs_at(ids) - 0.7

    entropy = lambda self: None


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


class Twice(View):
    def topk(self, k):
        return tuple(part[:, [0, *range(part.shape[1] - 1)]] for part in super().topk(k))


class Few(View):
    def topk(self, k):
        return super().topk(min(k, 3))


class Wild(View):
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


class Bits(View):
    def entropy(self):
        return super().entropy() / 0.6931


class LongEntropy(View):
    def entropy(self):
        return super().entropy()[:, None]


class Partial(View):
    """Knows its best 40 tokens, and says that these are all."""

    known = 40

    def topk(self, k):
        return tuple(part[:, : self.known] for part in super().topk(k))

    def logprobs_at(self, ids):
        floor = super().topk(self.known)[1][:, -1:]
        found = super().logprobs_at(ids)
        return found.masked_fill(found < floor, -torch.inf)


class Wire(Partial):
    """Knows its best 40 tokens, and says so."""

    def entropy(self):
        return None


class InOrder(View):
    def at(self, rows):
        return super().at(rows.sort().values)


class Crash(View):
    def at(self, rows):
        if len(rows) == 0:
            raise Loud("nothing to do")
        return super().at(rows)


def seen_through(view):
    class Teacher(Good):
        def score(self, waveforms, languages, token_ids):
            return view(self.logits(waveforms, token_ids))

    return Teacher()


@pytest.mark.parametrize("view", [View, Wire])
def test_a_good_teacher_passes(view):
    check_teacher(seen_through(view), language="Chinese")


@pytest.mark.parametrize(
    ("view", "sentence"),
    [
        (Raw, r"sum to [\d.e+]+; are these raw logits"),
        (Sunk, r"a row gives all \d+ tokens a value, but its probabilities sum to .*e-\d+; are these raw logits"),
        (HalfMass, r"a row gives all \d+ tokens a value, but its probabilities sum to 0\.49"),
        (Half, r"log-probabilities are float16 \[\d+, 1\], not float32"),
        (Narrow, "topk's ids are int32"),
        (Unsorted, "not sorted"),
        (Twice, "names an id twice"),
        (Few, r"topk\(5\) of \d+ tokens names 3"),
        (Wild, "outside 0 to"),
        (Shifted, "logprobs_at differs from topk"),
        (NotANumber, "is NaN"),
        (Bits, "entropy is not -sum p log p in nats"),
        (LongEntropy, r"entropy is float32 \[\d+, 1\]"),
        (Partial, "entropy is given, but .* sum to 0"),
        (InOrder, r"at\(\[\d+, 0, 0\]\) does not hold"),
        (Crash, r"at\(\[\]\) raises Loud: nothing to do"),
    ],
)
def test_a_broken_view_is_caught(view, sentence):
    assert re.search(sentence, caught(check_teacher, seen_through(view)))


def test_only_what_is_told_in_other_tokens_may_lack_mass_without_saying_where():
    half = TableView(torch.randn(3, 9).log_softmax(-1) - 0.7)
    check_view("check", half, 3, 1e-4, drops=True)
    assert "check: a row gives all 9 tokens a value" in str(
        pytest.raises(AssertionError, check_view, "check", half, 3, 1e-4)
    )
    some = TableView(half.table.masked_fill(torch.arange(9) == 4, -torch.inf))
    check_view("check", some, 3, 1e-4)  # one token is not known


class Stopless(Good):
    def __init__(self):
        super().__init__()
        self.stop_ids = []


class OneShort(Good):
    def logits(self, waveforms, token_ids):
        return super().logits(waveforms, token_ids)[:-1]


class NoView(Good):
    def score(self, *arguments):
        return self.logits(arguments[0], arguments[2])


class Padded(Good):
    """Lets the longest clip of the batch change the others."""

    def logits(self, waveforms, token_ids):
        return super().logits(waveforms, token_ids) + 1e-6 * max(map(len, waveforms)) * self.voice


class Muddled(Good):
    """Answers in the order of length."""

    def logits(self, waveforms, token_ids):
        pairs = sorted(zip(waveforms, token_ids), key=lambda pair: len(pair[0]))
        return super().logits(*zip(*pairs))


class Ahead(Good):
    """Row j has read token j."""

    def before(self, ids):
        return list(ids)


class Behind(Good):
    """Row j has not read token j - 1."""

    def before(self, ids):
        return [-1, -1, *ids[:-2]][: len(ids)]


class Leaking(Good):
    """From the fourth row on all rows have read the last token."""

    def read(self, ids):
        late = torch.arange(len(ids))[:, None] >= 3
        return super().read(ids) + late * self.table[ids[-1]]


class Peeping(Good):
    """Row j has read token j + 1 too, from the fourth row on."""

    def read(self, ids):
        seen = [*self.before(ids)[:3], *[*ids, ids[-1]][4:]]
        return super().read(ids) + 0.1 * self.table[seen[: len(ids)]]


class Bigram(Good):
    """Row j has read token j - 1 alone."""

    def read(self, ids):
        return self.table[self.before(ids)]


class Trigram(Good):
    """Row j has read tokens j - 2 and j - 1 alone."""

    def read(self, ids):
        before = self.before(ids)
        return self.table[before] + 0.5 * self.table[[-1, *before[:-1]]]


class Deaf(Good):
    def logits(self, waveforms, token_ids):
        return super().logits([torch.zeros(1600) for _ in waveforms], token_ids)


class Noisy(Good):
    def logits(self, waveforms, token_ids):
        logits = super().logits(waveforms, token_ids)
        return logits + 0.1 * torch.randn_like(logits)


class Trainable(Good):
    def __init__(self):
        super().__init__()
        self.parts = {"head": nn.Linear(2, 2)}


class Recording(Good):
    def __init__(self):
        super().__init__()
        self.table.requires_grad_()


class Appending(Good):
    def score(self, waveforms, languages, token_ids):
        view = super().score(waveforms, languages, token_ids)
        token_ids[0].append(0)
        return view


class Scaling(Good):
    def score(self, waveforms, languages, token_ids):
        view = super().score(waveforms, languages, token_ids)
        waveforms[0].mul_(2)
        return view


class OneText(Good):
    def transcribe(self, waveforms, languages):
        return ["the sea"]


class Pairs(Good):
    def transcribe(self, waveforms, languages):
        return [("the sea", 0.5) for _ in waveforms]


class Dreaming(Good):
    """Samples."""

    def transcribe(self, waveforms, languages):
        return [f"{torch.rand(()):.6f}" for _ in waveforms]


class Counting(Good):
    """The longest clip of the batch changes the others' texts."""

    def transcribe(self, waveforms, languages):
        return [f"{len(w)} of {max(map(len, waveforms))}" for w in waveforms]


class Mute(Good):
    transcribe = None


class Dumb(Good):
    def transcribe(self, waveforms, languages):
        raise Loud(languages[0])


@pytest.mark.parametrize(
    ("teacher", "sentence"),
    [
        (Stopless, "stop_ids must be ids"),
        (OneShort, r"int64 \[\d+, 1\], not int64 \[\d+, 1\] \(a row for each token id\)"),
        (NoView, "float32 .* is no DistributionView"),
        (Padded, "alone and in a batch differs"),
        (Muddled, "alone and in a batch differs"),
        (Ahead, "depends on token j or later ones"),
        (Behind, "does not depend on token j - 1"),
        (Leaking, "depends on token j or later ones"),
        (Peeping, "depends on token j or later ones"),
        (Bigram, "rows 4 to 8 do not depend on token 1"),
        (Trigram, "rows 4 to 8 do not depend on token 1"),
        (Deaf, "no row depends on the audio"),
        (Noisy, "the same clips twice differs"),
        (Trainable, "not frozen: weight, bias"),
        (Recording, "scores carry a gradient"),
        (Appending, "writes into"),
        (Scaling, "writes into"),
        (OneText, "a list of 4 texts"),
        (Pairs, "'tuple'"),
        (Dreaming, r"transcribing twice gives other texts \('0\.\d+' and '0\.\d+'\); decode greedily"),
        (Counting, r"a clip transcribed in a batch and alone differs \('1600 of 17600' and '1600 of 1600'\)"),
        (Mute, "raises TypeError|lacks"),
        (Dumb, "transcribe raises Loud: English"),
    ],
)
def test_a_broken_teacher_is_caught(teacher, sentence):
    assert re.search(sentence, caught(check_teacher, teacher()))


class Coarse(Good):
    def logits(self, waveforms, token_ids):
        """Round to what a batch of this size rounds to."""
        step = 0.002 * len(waveforms)
        return (super().logits(waveforms, token_ids) / step).round() * step


def test_a_coarse_teacher_needs_a_wider_tolerance():
    assert "alone and in a batch" in caught(check_teacher, Coarse())
    check_teacher(Coarse(), tolerance=0.02)


@pytest.mark.parametrize(("texts", "passes"), [(Counting, True), (Dreaming, False)])
def test_the_texts_of_a_coarse_teacher_may_depend_on_the_batch_but_on_no_chance(texts, passes):
    teacher = type("", (texts, Coarse), {})()
    if passes:
        check_teacher(teacher, tolerance=0.02)
    else:
        assert "transcribing twice" in caught(check_teacher, teacher, tolerance=0.02)


def test_a_teacher_whose_very_scores_differ_from_call_to_call_is_not_held_to_equal_texts():
    """As a server that batches what arrives."""

    class Server(Dreaming):
        calls = 0

        def logits(self, waveforms, token_ids):
            self.calls += 1
            return super().logits(waveforms, token_ids) * (1 + 0.001 * (self.calls % 2))

    check_teacher(Server(), tolerance=0.02)


def test_few_calls_are_made():
    """A teacher may be far away: all changes of a clip are scored in one call."""
    calls = {"score": [], "transcribe": []}

    class Remote(Good):
        def score(self, waveforms, languages, token_ids):
            calls["score"].append(len(waveforms))
            return super().score(waveforms, languages, token_ids)

        def transcribe(self, waveforms, languages):
            calls["transcribe"].append(len(waveforms))
            return super().transcribe(waveforms, languages)

    check_teacher(Remote())
    assert calls == {"score": [4, 4, 1, 1, 1, 1, 6, 4], "transcribe": [4, 4, 1, 1, 1, 1]}


def test_what_is_no_teacher_is_said_so():
    assert "lacks" in caught(check_teacher, object())
