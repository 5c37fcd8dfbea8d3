"""Algorithm 1 on tiny models against a slow rendering: full logits, one position at a time, in float64."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from mapper_cases import rendered
from steps import SIZES, InMemory, frozen_teacher, opd, trainable
from tiny import batch, bpe_bytes, eager_to_stop, piece_bytes, student, teacher

from arkasr.builtin.mappers.byte_offsets import ByteOffsets, ByteOffsetsOptions
from arkasr.builtin.mappers.identity import Identity
from arkasr.builtin.mappers.shared_strings import SharedStrings
from arkasr.config.schema import RolloutConfig
from arkasr.distill.metrics import rates
from arkasr.distributions.views import DenseView
from arkasr.errors import UserError
from arkasr.utils.timing import Phases


def full_logits(lm, clip, language, ids):
    """Float64 logits [len(ids), V]: row j says what comes after the prompt and ids[:j]; one clip, no batch."""
    embed = lm.hf.get_input_embeddings().weight
    before, after = (lm.tokenizer.encode(part, add_special_tokens=False) for part in lm.prompt_text(language))
    with torch.no_grad():
        [audio] = lm.encode_audio([clip])
        whole = torch.cat([embed[before], audio, embed[after + list(ids)]])
        logits = lm.hf(inputs_embeds=whole[None]).logits[0].double()
    start = len(before) + len(audio) + len(after) - 1
    return logits[start : start + len(ids)]


def greedy(lm, clip, language, cap):
    """Roll one clip out by whole forward passes."""
    ids = []
    while len(ids) < cap and not (ids and ids[-1] in lm.stop_ids):
        logits = full_logits(lm, clip, language, [*ids, 0])[-1]
        ids.append(int(logits.masked_fill(lm.blocked, -torch.inf).argmax()))
    return ids


def best(logits, k):
    return sorted(range(len(logits)), key=lambda i: -logits[i])[:k]


def slow(lm, theirs, clips, temperature, k):
    """Algorithm 1: loss sum, count, and support sizes and overlaps of all positions."""
    student_of = {b: i for i, b in sorted(piece_bytes(lm.tokenizer).items())}
    teacher_of = {b: i for i, b in bpe_bytes(theirs.tokenizer).items()}
    shared = {teacher_of[b]: student_of[b] for b in student_of.keys() & teacher_of.keys()}
    shared[theirs.stop_ids[0]] = lm.stop_ids[0]
    back = {s: t for t, s in shared.items()}
    total, count, sizes, overlaps, transcripts = 0.0, 0, [], [], []
    for clip, language in zip(clips.waveforms, clips.languages):
        cap = min(9, 2 + -(-len(clip) * 12 // 16000))
        ids = greedy(lm, clip, language, cap)
        transcripts.append(ids)
        z_s = full_logits(lm, clip, language, ids).masked_fill(lm.blocked, -torch.inf).tolist()
        teacher_ids, pairs, _ = rendered(ids)
        z_t = full_logits(theirs, clip, language, teacher_ids).log_softmax(-1).tolist()
        for s, t in pairs:
            from_teacher = {shared[i] for i in best(z_t[t], k) if i in shared}
            from_student = {i for i in best(z_s[s], k) if i in back}
            union = sorted(from_teacher | from_student)
            if len(union) < 2:
                continue
            count += 1
            sizes.append(len(union))
            overlaps.append(len(from_teacher & from_student) / k)
            p = (torch.tensor([z_t[t][back[i]] for i in union], dtype=torch.float64) / temperature).softmax(0)
            q = (torch.tensor([z_s[s][i] for i in union], dtype=torch.float64) / temperature).softmax(0)
            total += temperature**2 * float((p * (p.log() - q.log())).sum())
    return total, count, sizes, overlaps, transcripts


@pytest.mark.parametrize(
    ("temperature", "k", "language"), [(1.0, 6, "English"), (2.0, 3, "Chinese"), (0.5, 12, "English")]
)
def test_a_step_is_algorithm_one(temperature, k, language):
    lm, clips = trainable(), batch(SIZES, language=language)
    expected, positions, sizes, overlaps, transcripts = slow(lm, frozen_teacher().lm, clips, temperature, k)
    one = opd(lm, temperature=temperature, k=k)
    made = one.collect(lm, clips, Phases())
    total, count = one.rescore(lm, made)
    assert made.rollout.made.ids == transcripts
    assert int(count) == positions == int(made.sums["positions"]) > 10
    assert float(total.detach()) == pytest.approx(expected, rel=1e-4) and expected > 0.1
    measured = rates({name: float(value) for name, value in made.sums.items()})
    assert measured["vuss"] == pytest.approx(sum(sizes) / count)
    assert (measured["vuss_min"], measured["vuss_max"]) == (min(sizes), max(sizes))
    assert measured["overlap"] == pytest.approx(sum(overlaps) / count)
    stopped = [ids[-1] in lm.stop_ids for ids in transcripts]
    assert measured["stop_rate"] == pytest.approx(sum(stopped) / 6) and 0 < sum(stopped) < 6
    paired = sum(len(rendered(ids)[1]) for ids in transcripts)
    assert measured["coverage"] == pytest.approx(paired / sum(map(len, transcripts)))
    assert measured["mismatch_rate"] == pytest.approx(sum(not rendered(ids)[2] for ids in transcripts) / 6)


def test_the_gradient_reaches_every_weight_of_the_student_and_none_of_the_teacher():
    lm = trainable()
    one = opd(lm)
    total, _ = one.rescore(lm, one.collect(lm, batch(SIZES), Phases()))
    total.backward()
    assert [name for name, p in lm.hf.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad.isfinite().all() for p in lm.hf.parameters())
    assert all(p.grad is None for p in frozen_teacher().lm.parameters())


def test_descent_brings_the_student_nearer_to_its_teacher():
    lm, clips = trainable(), batch(SIZES)
    one = opd(lm)
    made = one.collect(lm, clips, Phases())
    optimizer = torch.optim.SGD(lm.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        made.rollout.audio = lm.encode_audio(clips.waveforms)  # as the weights are now
        total, count = one.rescore(lm, made)
        (total / count).backward()
        optimizer.step()
        losses.append(float(total.detach()))
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


@pytest.mark.parametrize("make", [student, teacher])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_its_own_teacher_teaches_nothing(make, temperature):
    lm, same = (eager_to_stop(make(10), 2.0) for _ in range(2))
    one = opd(lm, InMemory(same), Identity, temperature)
    made = one.collect(lm, batch(SIZES), Phases())
    total, count = one.rescore(lm, made)
    total.backward()
    assert int(count) == sum(map(len, made.rollout.made.ids))
    assert float(total.detach()) == pytest.approx(0.0, abs=1e-4)
    largest = max(float(p.grad.abs().max()) for p in lm.hf.parameters() if p.grad is not None)
    assert largest < 1e-3
    measured = rates({name: float(value) for name, value in made.sums.items()})
    assert measured["coverage"] == 1.0 and measured["mismatch_rate"] == 0.0


@pytest.mark.parametrize("split", [[[0], [1], [2], [3], [4], [5]], [[3, 1], [0, 5, 2, 4]]])
def test_micro_batches_add_up(split):
    lm, clips = trainable(), batch(SIZES)
    one = opd(lm)
    whole, count = one.rescore(lm, one.collect(lm, clips, Phases()))
    parts = [one.rescore(lm, one.collect(lm, clips.select(part), Phases())) for part in split]
    assert sum(int(n) for _, n in parts) == int(count)
    assert float(sum(t.detach() for t, _ in parts)) == pytest.approx(float(whole.detach()), rel=1e-4)


def empty_first():
    """A student that says nothing to the first clip."""
    return eager_to_stop(student(11))


class Spoilt(InMemory):
    """A teacher whose answer is made into another."""

    def __init__(self, lm, spoil):
        super().__init__(lm)
        self.spoil = spoil

    def score(self, waveforms, languages, token_ids):
        """Score, and spoil it."""
        return DenseView(self.spoil(super().score(waveforms, languages, token_ids).logits))


@pytest.mark.parametrize(
    "spoil", [lambda logits: logits[:-1], lambda logits: torch.cat([logits[:1], logits]), lambda logits: logits[:0]]
)
@pytest.mark.parametrize("mapper", [SharedStrings, lambda _, **models: ByteOffsets(ByteOffsetsOptions(), **models)])
def test_a_teacher_that_gives_another_number_of_positions_is_named(spoil, mapper):
    lm = trainable()
    one = opd(lm, Spoilt(frozen_teacher().lm, spoil), mapper)
    with pytest.raises(UserError, match=r"teacher Spoilt: gave \d+ positions where \d+ were asked for"):
        one.collect(lm, batch(SIZES), Phases())


def test_a_mapper_that_gives_another_number_of_positions_is_named():
    lm = trainable()
    one = opd(lm)
    one.mapper.translate = lambda view, alignment: view.at(alignment.teacher_rows[:-1])
    with pytest.raises(UserError, match="mapper SharedStrings: gave"):
        one.collect(lm, batch(SIZES), Phases())


def spoilt_rows(value, every):
    def spoil(logits):
        logits = logits.clone()
        logits[::every] = value
        return logits

    return spoil


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("every", [1, 3])
def test_positions_that_the_teacher_does_not_answer_count_nowhere(value, every):
    """A row of nothing but NaN, inf or -inf is no distribution: the others give the numbers they give without it."""
    lm, clips = trainable(), batch(SIZES)
    healthy = opd(lm).collect(lm, clips, Phases())
    one = opd(lm, Spoilt(frozen_teacher().lm, spoilt_rows(value, every)))
    made = one.collect(lm, clips, Phases())
    total, count = one.rescore(lm, made, diagnose=True)
    total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in lm.parameters())
    good = torch.tensor([int(row) % every != 0 for row in one.mapper.align(made.rollout.made.ids).teacher_rows])
    assert int(count) == int(made.sums["positions"]) == int((good & (healthy.support.valid.sum(-1) >= 2)).sum())
    assert (int(count) > 0) == (every > 1) and int(made.sums["unanswered"]) == int((~good).sum()) > 0
    logged = rates({name: float(number) for name, number in made.sums.items()})
    assert all(math.isfinite(number) for number in logged.values())
    if every == 1:
        assert float(total.detach()) == 0.0 and "stop/late" not in logged and "dropped_mass" not in logged
    else:
        kept = healthy.support.valid[good]
        assert torch.equal(made.support.valid[good], kept) and not made.support.valid[~good].any()


@pytest.mark.parametrize("k", [1, 10**6])
def test_k_may_be_one_or_more_than_any_vocabulary(k):
    lm, clips = trainable(), batch(SIZES)
    one = opd(lm, k=k)
    made = one.collect(lm, clips, Phases())
    total, count = one.rescore(lm, made)
    total.backward()
    assert int(count) > 10 and 0 < float(total.detach()) < math.inf
    logged = rates({name: float(number) for name, number in made.sums.items()})
    assert logged["vuss_max"] <= (2 if k == 1 else 2 * len(lm.blocked)) and logged["overlap"] <= 1
    if k > 1:
        assert made.rollout.made.topk.shape[1] == len(lm.blocked) and logged["overlap"] > 0.3  # of what both hold


def test_a_pad_token_that_is_the_stop_loses_no_stop():
    """TRL's and others' trap: where padding is masked by its id, the stops go with it."""
    lm, same = trainable(), trainable()
    same.tokenizer = copy.deepcopy(same.tokenizer)
    same.tokenizer.pad_token = same.tokenizer.eos_token = "<|im_end|>"
    assert same.tokenizer.pad_token_id == same.stop_ids[0] != lm.tokenizer.pad_token_id
    made, grads = [], []
    for model in (lm, same):
        one = opd(model)
        made.append(one.collect(model, batch(SIZES), Phases()))
        total, _ = one.rescore(model, made[-1])
        total.backward()
        grads.append(model.head.grad[model.stop_ids[0]])
    assert made[0].rollout.made.ids == made[1].rollout.made.ids and any(made[0].rollout.made.stopped)
    assert torch.equal(made[0].support.valid, made[1].support.valid)
    torch.testing.assert_close(*grads)
    assert grads[0].abs().sum() > 0


def test_an_empty_rollout_teaches_its_stop():
    lm = empty_first()
    one = opd(lm)
    made = one.collect(lm, batch(SIZES[:1]), Phases())
    total, count = one.rescore(lm, made)
    total.backward()
    assert made.rollout.made.ids == [[lm.stop_ids[0]]] and int(count) == 1
    assert float(total.detach()) > 0 and lm.head.grad[lm.stop_ids[0]].any()
    assert lm.stop_ids[0] in made.support.student_ids[0][made.support.valid[0]].tolist()


def test_a_skipped_clip_counts_in_the_rates_and_nowhere_else():
    lm, clips = empty_first(), batch(SIZES)
    one = opd(lm, empty="skip")
    made = one.collect(lm, clips, Phases())
    rest = opd(lm).collect(lm, clips.select([1, 2, 3, 4, 5]), Phases())
    assert made.batch.ids == clips.ids[1:] and made.rollout.made.ids == rest.rollout.made.ids
    for a, b in zip(one.rescore(lm, made), one.rescore(lm, rest)):
        torch.testing.assert_close(a, b)
    measured = rates({name: float(value) for name, value in made.sums.items()})
    assert measured["empty_rate"] == pytest.approx(1 / 6)
    stops = 1 + sum(rest.rollout.made.stopped)
    assert measured["stop_rate"] == pytest.approx(stops / 6)


def test_a_batch_of_skipped_clips_is_nothing_that_can_be_walked_back():
    lm = empty_first()
    one = opd(lm, empty="skip")
    clips = batch(SIZES[:1] * 3)
    clips.waveforms = clips.waveforms[:1] * 3
    made = one.collect(lm, clips, Phases())
    total, count = one.rescore(lm, made)
    total.backward()
    assert (float(total.detach()), int(count), int(made.sums["positions"])) == (0.0, 0, 0)
    assert all(p.grad is None or not p.grad.any() for p in lm.hf.parameters())
    assert lm.hf.model.audio_tower.conv1.weight.grad is not None
    measured = rates({name: float(value) for name, value in made.sums.items()})
    assert (measured["empty_rate"], measured["stop_rate"], measured["vuss"]) == (1.0, 1.0, 0.0)


def test_the_reference_is_scored_instead_of_an_empty_rollout():
    lm = empty_first()
    one = opd(lm, empty="reference")
    made = one.collect(lm, batch(SIZES[:1], ["sea shells"]), Phases())
    _, count = one.rescore(lm, made)
    assert made.rollout.made.ids == [lm.text_ids("sea shells")] and int(count) > 1


def test_phases_are_timed():
    lm, phases = trainable(), Phases()
    opd(lm).collect(lm, batch(SIZES[:2]), phases)
    assert set(phases.take()) == {"time/rollout", "time/teacher"}


# Samples and given texts


def test_samples_are_scored_like_clips_of_their_own_and_heard_once(monkeypatch):
    lm, clips = trainable(), batch(SIZES[:3])
    one = opd(lm, temperature=1.0)
    torch.manual_seed(0)
    one.rollout = RolloutConfig(max_new_tokens=9, temperature=2.0, samples=3)
    made = one.collect(lm, clips, Phases())
    assert made.batch.ids == [name for name in clips.ids for _ in range(3)]
    heard, encode = [], type(lm).encode_audio
    monkeypatch.setattr(type(lm), "encode_audio", lambda self, w: heard.append(len(w)) or encode(self, w))
    total, count = one.rescore(lm, made)
    assert heard == []  # they were when rolled out
    monkeypatch.undo()
    made.rollout.audio = [made.rollout.audio[i] for i in made.rollout.kept]  # as if each were a clip of its own
    made.rollout.kept = list(range(9))
    for a, b in zip((total, count), one.rescore(lm, made)):
        torch.testing.assert_close(a, b)
    measured = rates({name: float(value) for name, value in made.sums.items()})
    stopped = [ids[-1] in lm.stop_ids for ids in made.rollout.made.ids]
    assert measured["stop_rate"] == pytest.approx(sum(stopped) / 9) and measured["share/student"] == 1


def test_what_is_scored_is_drawn_for_each_clip():
    lm, texts = trainable(), ["one", "two", "", "four", "five", "six"]
    one = opd(lm, mix={"student": 0.0, "teacher": 1.0, "reference": 1.0})
    torch.manual_seed(0)
    seen = set()
    for _ in range(4):
        made = one.collect(lm, batch(SIZES, texts), Phases())
        for clip, ids, source in zip(made.rollout.kept, made.rollout.made.ids, made.rollout.sources, strict=True):
            seen.add((clip, source))
            told = {"teacher": "she sells", "reference": texts[clip]}
            assert source == "student" or ids == lm.text_ids(told[source])
    # The teacher hears nothing in clips 1 and 4, and clip 2 has no text: the student's rollout stands for either.
    assert seen == {(i, "teacher") for i in (0, 2, 3, 5)} | {(i, "reference") for i in (0, 1, 3, 4, 5)} | {
        (i, "student") for i in (1, 2, 4)
    }
    measured = rates({name: float(value) for name, value in made.sums.items()})
    shares = [made.rollout.sources.count(source) / 6 for source in ("student", "teacher", "reference")]
    assert [measured[f"share/{source}"] for source in ("student", "teacher", "reference")] == pytest.approx(shares)


def test_without_a_rollout_the_step_is_the_same_as_on_given_texts():
    lm, clips = trainable(), batch(SIZES, ["the sea"] * 6)
    one = opd(lm, mix={"reference": 1.0})
    made = one.collect(lm, clips, Phases())
    total, count = one.rescore(lm, made)
    total.backward()
    assert made.rollout.made.ids == [lm.text_ids("the sea")] * 6 and int(count) > 6 and lm.head.grad.any()
    measured = rates({name: float(value) for name, value in made.sums.items()})
    assert (measured["stop_rate"], measured["cut_rate"], measured["share/reference"]) == (0, 0, 1)


# Diagnostics


def diagnosed(lm, one, clips):
    made = one.collect(lm, clips, Phases())
    total, count = one.rescore(lm, made, diagnose=True)
    return made, total, count


def test_measuring_changes_nothing():
    lm, clips = trainable(), batch(SIZES)
    one, state = opd(lm), torch.get_rng_state()
    grads = []
    for measured in (False, True):
        lm.zero_grad()
        total, count = one.rescore(lm, one.collect(lm, clips, Phases()), diagnose=measured)
        total.backward()
        grads.append([float(total.detach()), int(count), *(p.grad for p in lm.parameters() if p.grad is not None)])
    assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(*grads, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_kl_measured_is_the_loss_at_temperature_one():
    lm, clips = trainable(), batch(SIZES)
    made, total, count = diagnosed(lm, opd(lm), clips)
    assert made.sums["kl/all#"] == int(count) and made.sums["kl/all"] == pytest.approx(float(total.detach()), rel=1e-4)
    for names in (["correct", "wrong"], [f"decile_{i}" for i in range(10)], ["language_English"]):
        assert sum(made.sums[f"kl/{name}"] for name in names) == pytest.approx(made.sums["kl/all"])
    made, _, _ = diagnosed(lm, opd(lm, temperature=2.0), clips)
    assert made.sums["kl/all"] == pytest.approx(float(total.detach()), rel=1e-4)


def test_masses_entropies_and_stops_are_those_of_the_slow_rendering():
    lm, clips = trainable(), batch(SIZES, ["the sea", "one", "sells", "two three", "dog", "fox"])
    made, _, _ = diagnosed(lm, opd(lm, mix={"reference": 1.0}), clips)  # a random student's own stops are rarely paired
    logged = rates({name: float(value) for name, value in made.sums.items()})
    masses, entropies, early, late = [], [], [], []
    rows = iter(made.support.student_ids[i][valid] for i, valid in enumerate(made.support.valid))
    for clip, language, ids in zip(clips.waveforms, clips.languages, made.rollout.made.ids):
        ours = full_logits(lm, clip, language, ids).masked_fill(lm.blocked, -torch.inf).softmax(-1)
        teacher_ids, pairs, _ = rendered(ids)
        theirs = full_logits(frozen_teacher().lm, clip, language, teacher_ids).softmax(-1)
        for s, t in pairs:
            support = next(rows)
            if len(support) < 2:
                continue
            masses.append(float(ours[s][support].sum()))
            entropies.append(float(-(ours[s].clamp(min=1e-300).log() * ours[s]).sum()))
            sure = float(theirs[t][frozen_teacher().stop_ids[0]]) >= 0.5
            (early if ids[s] in lm.stop_ids else late).append(sure == (ids[s] not in lm.stop_ids))
    assert logged["mass/student_support"] == pytest.approx(sum(masses) / len(masses), rel=1e-4)
    assert logged["entropy/student"] == pytest.approx(sum(entropies) / len(entropies), rel=1e-4)
    assert len(early) == 6 and logged["stop/early"] == pytest.approx(sum(early) / 6)
    assert logged["stop/late"] == pytest.approx(sum(late) / len(late))


def test_its_own_teacher_is_always_right():
    lm, same = (eager_to_stop(student(10), 2.0) for _ in range(2))
    made, _, _ = diagnosed(lm, opd(lm, InMemory(same), Identity), batch(SIZES))
    logged = rates({name: float(value) for name, value in made.sums.items()})
    assert logged["kl/all"] == pytest.approx(0, abs=1e-5) and logged["overlap_advantage"] == pytest.approx(0, abs=1e-5)
    assert logged["teacher_agreement"] > 0.9 and logged["mass/teacher_overlap"] > 0


def test_a_batch_of_skipped_clips_measures_nothing():
    lm = empty_first()
    made, _, count = diagnosed(lm, opd(lm, empty="skip"), batch(SIZES[:1]))
    assert int(count) == 0 and not any(name.startswith(("kl/", "mass/")) for name in made.sums)
    measured = rates({name: float(value) for name, value in made.sums.items()})
    assert measured["share/student"] == measured["mismatch_rate"] == 0.0
