"""Algorithm 1 on tiny models, compared with a slow reference: full logits, one position at a time, in float64."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from mapper_cases import reference_alignment
from steps import SIZES, InMemory, frozen_teacher, opd, trainable
from tiny import batch, bpe_bytes, eager_to_stop, piece_bytes, student, teacher

from arkasr.builtin.mappers.byte_offsets import ByteOffsets, ByteOffsetsOptions
from arkasr.builtin.mappers.identity import Identity
from arkasr.builtin.mappers.shared_strings import SharedStrings
from arkasr.config.schema import RolloutConfig
from arkasr.distill.metrics import rates
from arkasr.distributions.views import DenseView
from arkasr.errors import UserError
from arkasr.interfaces import Transcript
from arkasr.utils.timing import Phases


def full_logits(lm, clip, language, ids):
    """Return float64 logits [len(ids), V] of a single clip: row j follows the prompt and ids[:j]."""
    embed = lm.hf.get_input_embeddings().weight
    before, after = (lm.tokenizer.encode(part, add_special_tokens=False) for part in lm.prompt_text(language))
    with torch.no_grad():
        [audio] = lm.encode_audio([clip])
        whole = torch.cat([embed[before], audio, embed[after + list(ids)]])
        logits = lm.hf(inputs_embeds=whole[None]).logits[0].double()
    start = len(before) + len(audio) + len(after) - 1
    return logits[start : start + len(ids)]


def reference_rollout(lm, clip, language, cap):
    """Transcribe one clip greedily with a full forward pass per token."""
    ids = []
    while len(ids) < cap and not (ids and ids[-1] in lm.stop_ids):
        logits = full_logits(lm, clip, language, [*ids, 0])[-1]
        ids.append(int(logits.masked_fill(lm.blocked, -torch.inf).argmax()))
    return ids


def reference_topk(logits, k):
    return sorted(range(len(logits)), key=lambda i: -logits[i])[:k]


def reference_step(lm, teacher_lm, clips, temperature, k):
    """Return loss sum, count, support sizes and overlap ratios of counted positions, and transcripts of Algorithm 1."""
    student_of = {b: i for i, b in sorted(piece_bytes(lm.tokenizer).items())}
    teacher_of = {b: i for i, b in bpe_bytes(teacher_lm.tokenizer).items()}
    to_student = {teacher_of[b]: student_of[b] for b in student_of.keys() & teacher_of.keys()}
    to_student[teacher_lm.stop_ids[0]] = lm.stop_ids[0]
    to_teacher = {s: t for t, s in to_student.items()}
    total, count, sizes, overlaps, transcripts = 0.0, 0, [], [], []
    for clip, language in zip(clips.waveforms, clips.languages):
        cap = min(9, 2 + -(-len(clip) * 12 // 16000))
        ids = reference_rollout(lm, clip, language, cap)
        transcripts.append(ids)
        z_s = full_logits(lm, clip, language, ids).masked_fill(lm.blocked, -torch.inf).tolist()
        teacher_ids, pairs, _ = reference_alignment(ids)
        z_t = full_logits(teacher_lm, clip, language, teacher_ids).log_softmax(-1).tolist()
        for s, t in pairs:
            from_teacher = {to_student[i] for i in reference_topk(z_t[t], k) if i in to_student}
            from_student = {i for i in reference_topk(z_s[s], k) if i in to_teacher}
            union = sorted(from_teacher | from_student)
            if len(union) < 2:
                continue
            count += 1
            sizes.append(len(union))
            overlaps.append(len(from_teacher & from_student) / k)
            p_t = (torch.tensor([z_t[t][to_teacher[i]] for i in union], dtype=torch.float64) / temperature).softmax(0)
            p_s = (torch.tensor([z_s[s][i] for i in union], dtype=torch.float64) / temperature).softmax(0)
            total += temperature**2 * float((p_t * (p_t.log() - p_s.log())).sum())
    return total, count, sizes, overlaps, transcripts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("temperature", "k", "language"), [(1.0, 6, "English"), (2.0, 3, "Chinese"), (0.5, 12, "English")]
)
def test_step_equals_reference_algorithm_1(temperature, k, language):
    lm, clips = trainable(), batch(SIZES, language=language)
    reference = reference_step(lm, frozen_teacher().lm, clips, temperature, k)
    expected, positions, sizes, overlaps, transcripts = reference
    one = opd(lm, temperature=temperature, k=k)
    scored = one.collect(lm, clips, Phases())
    total, count = one.rescore(lm, scored)
    assert scored.rollout.generation.ids == transcripts
    assert int(count) == positions == int(scored.sums["positions"]) > 10
    assert float(total.detach()) == pytest.approx(expected, rel=1e-4) and expected > 0.1
    measured = rates({name: float(value) for name, value in scored.sums.items()})
    assert measured["vuss"] == pytest.approx(sum(sizes) / count)
    assert (measured["vuss_min"], measured["vuss_max"]) == (min(sizes), max(sizes))
    assert measured["overlap"] == pytest.approx(sum(overlaps) / count)
    stopped = [ids[-1] in lm.stop_ids for ids in transcripts]
    assert measured["stop_rate"] == pytest.approx(sum(stopped) / 6) and 0 < sum(stopped) < 6
    paired = sum(len(reference_alignment(ids)[1]) for ids in transcripts)
    assert measured["coverage"] == pytest.approx(paired / sum(map(len, transcripts)))
    assert measured["mismatch_rate"] == pytest.approx(sum(not reference_alignment(ids)[2] for ids in transcripts) / 6)


def test_gradient_reaches_all_student_weights_and_no_teacher_weight():
    lm = trainable()
    one = opd(lm)
    total, _ = one.rescore(lm, one.collect(lm, batch(SIZES), Phases()))
    total.backward()
    assert [name for name, p in lm.hf.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad.isfinite().all() for p in lm.hf.parameters())
    assert all(p.grad is None for p in frozen_teacher().lm.parameters())


def test_gradient_descent_reduces_loss():
    lm, clips = trainable(), batch(SIZES)
    one = opd(lm)
    scored = one.collect(lm, clips, Phases())
    optimizer = torch.optim.SGD(lm.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        scored.rollout.audio = lm.encode_audio(clips.waveforms)  # with the current weights
        total, count = one.rescore(lm, scored)
        (total / count).backward()
        optimizer.step()
        losses.append(float(total.detach()))
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


@pytest.mark.parametrize("make", [student, teacher])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_loss_is_zero_if_student_equals_teacher(make, temperature):
    lm, same = (eager_to_stop(make(10), 2.0) for _ in range(2))
    one = opd(lm, InMemory(same), Identity, temperature)
    scored = one.collect(lm, batch(SIZES), Phases())
    total, count = one.rescore(lm, scored)
    total.backward()
    assert int(count) == sum(map(len, scored.rollout.generation.ids))
    assert float(total.detach()) == pytest.approx(0.0, abs=1e-4)
    largest = max(float(p.grad.abs().max()) for p in lm.hf.parameters() if p.grad is not None)
    assert largest < 1e-3
    measured = rates({name: float(value) for name, value in scored.sums.items()})
    assert measured["coverage"] == 1.0 and measured["mismatch_rate"] == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("split", [[[0], [1], [2], [3], [4], [5]], [[3, 1], [0, 5, 2, 4]]])
def test_micro_batch_losses_add_up(split):
    lm, clips = trainable(), batch(SIZES)
    one = opd(lm)
    whole, count = one.rescore(lm, one.collect(lm, clips, Phases()))
    parts = [one.rescore(lm, one.collect(lm, clips.select(part), Phases())) for part in split]
    assert sum(int(n) for _, n in parts) == int(count)
    assert float(sum(t.detach() for t, _ in parts)) == pytest.approx(float(whole.detach()), rel=1e-4)


def empty_first():
    """Return a student whose transcript of the first clip is empty."""
    return eager_to_stop(student(52))


class AlteredTeacher(InMemory):
    """A teacher whose logits are changed by a function."""

    def __init__(self, lm, alter):
        super().__init__(lm)
        self.alter = alter

    def score(self, waveforms, languages, token_ids):
        return DenseView(self.alter(super().score(waveforms, languages, token_ids).logits))


@pytest.mark.parametrize(
    "alter", [lambda logits: logits[:-1], lambda logits: torch.cat([logits[:1], logits]), lambda logits: logits[:0]]
)
@pytest.mark.parametrize("mapper", [SharedStrings, lambda _, **models: ByteOffsets(ByteOffsetsOptions(), **models)])
def test_wrong_number_of_teacher_positions_is_reported(alter, mapper):
    lm = trainable()
    one = opd(lm, AlteredTeacher(frozen_teacher().lm, alter), mapper)
    with pytest.raises(UserError, match=r"teacher AlteredTeacher: returned \d+ positions, expected \d+"):
        one.collect(lm, batch(SIZES), Phases())


def test_wrong_number_of_mapper_positions_is_reported():
    lm = trainable()
    one = opd(lm)
    one.mapper.translate = lambda view, alignment: view.at(alignment.teacher_rows[:-1])
    with pytest.raises(UserError, match="mapper SharedStrings: returned"):
        one.collect(lm, batch(SIZES), Phases())


def replace_rows(value, every):
    def alter(logits):
        logits = logits.clone()
        logits[::every] = value
        return logits

    return alter


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("every", [1, 3])
def test_positions_without_teacher_distribution_are_excluded(value, every):
    """Rows of NaN, inf or -inf are not distributions. The results of the other positions do not change."""
    lm, clips = trainable(), batch(SIZES)
    healthy = opd(lm).collect(lm, clips, Phases())
    one = opd(lm, AlteredTeacher(frozen_teacher().lm, replace_rows(value, every)))
    scored = one.collect(lm, clips, Phases())
    total, count = one.rescore(lm, scored, diagnose=True)
    total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in lm.parameters())
    good = torch.tensor([int(row) % every != 0 for row in one.mapper.align(scored.rollout.generation.ids).teacher_rows])
    assert int(count) == int(scored.sums["positions"]) == int((good & (healthy.support.valid.sum(-1) >= 2)).sum())
    assert (int(count) > 0) == (every > 1) and int(scored.sums["teacher_missing"]) == int((~good).sum()) > 0
    logged = rates({name: float(number) for name, number in scored.sums.items()})
    assert all(math.isfinite(number) for number in logged.values())
    if every == 1:
        assert float(total.detach()) == 0.0 and "stop/late" not in logged and "dropped_mass" not in logged
    else:
        kept = healthy.support.valid[good]
        assert torch.equal(scored.support.valid[good], kept) and not scored.support.valid[~good].any()


@pytest.mark.parametrize("k", [1, 10**6])
def test_top_k_may_be_one_or_exceed_vocabularies(k):
    lm, clips = trainable(), batch(SIZES)
    one = opd(lm, k=k)
    scored = one.collect(lm, clips, Phases())
    total, count = one.rescore(lm, scored)
    total.backward()
    assert int(count) > 10 and 0 < float(total.detach()) < math.inf
    logged = rates({name: float(number) for name, number in scored.sums.items()})
    assert logged["vuss_max"] <= (2 if k == 1 else 2 * len(lm.blocked)) and logged["overlap"] <= 1
    if k > 1:  # k exceeds both vocabularies
        assert scored.rollout.generation.topk.shape[1] == len(lm.blocked) and logged["overlap"] > 0.3


def test_pad_token_may_equal_stop_token():
    """Masking padding by its id, as TRL and others do, would also mask the stops."""
    lm, same = trainable(), trainable()
    same.tokenizer = copy.deepcopy(same.tokenizer)
    same.tokenizer.pad_token = same.tokenizer.eos_token = "<|im_end|>"
    assert same.tokenizer.pad_token_id == same.stop_ids[0] != lm.tokenizer.pad_token_id
    scored, grads = [], []
    for model in (lm, same):
        one = opd(model)
        scored.append(one.collect(model, batch(SIZES), Phases()))
        total, _ = one.rescore(model, scored[-1])
        total.backward()
        grads.append(model.head.grad[model.stop_ids[0]])
    first, second = (one.rollout.generation for one in scored)
    assert first.ids == second.ids and any(first.stopped)
    assert torch.equal(scored[0].support.valid, scored[1].support.valid)
    torch.testing.assert_close(*grads)
    assert grads[0].abs().sum() > 0


def test_empty_rollout_scores_its_stop():
    lm = empty_first()
    one = opd(lm)
    scored = one.collect(lm, batch(SIZES[:1]), Phases())
    total, count = one.rescore(lm, scored)
    total.backward()
    assert scored.rollout.generation.ids == [[lm.stop_ids[0]]] and int(count) == 1
    assert float(total.detach()) > 0 and lm.head.grad[lm.stop_ids[0]].any()
    assert lm.stop_ids[0] in scored.support.student_ids[0][scored.support.valid[0]].tolist()


def test_skipped_clip_counts_only_in_rates():
    lm, clips = empty_first(), batch(SIZES)
    one = opd(lm, empty="skip")
    scored = one.collect(lm, clips, Phases())
    rest = opd(lm).collect(lm, clips.select([1, 2, 3, 4, 5]), Phases())
    assert scored.batch.ids == clips.ids[1:] and scored.rollout.generation.ids == rest.rollout.generation.ids
    for a, b in zip(one.rescore(lm, scored), one.rescore(lm, rest)):
        torch.testing.assert_close(a, b)
    measured = rates({name: float(value) for name, value in scored.sums.items()})
    assert measured["empty_rate"] == pytest.approx(1 / 6)
    stops = 1 + sum(rest.rollout.generation.stopped)
    assert measured["stop_rate"] == pytest.approx(stops / 6)


def test_batch_of_skipped_clips_has_zero_loss_and_supports_backward():
    lm = empty_first()
    one = opd(lm, empty="skip")
    clips = batch(SIZES[:1] * 3)
    clips.waveforms = clips.waveforms[:1] * 3
    scored = one.collect(lm, clips, Phases())
    total, count = one.rescore(lm, scored)
    total.backward()
    assert (float(total.detach()), int(count), int(scored.sums["positions"])) == (0.0, 0, 0)
    assert all(p.grad is None or not p.grad.any() for p in lm.hf.parameters())
    assert lm.hf.model.audio_tower.conv1.weight.grad is not None
    measured = rates({name: float(value) for name, value in scored.sums.items()})
    assert (measured["empty_rate"], measured["stop_rate"]) == (1.0, 1.0)
    assert "vuss" not in measured  # nothing was measured


def test_reference_replaces_empty_rollout():
    lm = empty_first()
    one = opd(lm, empty="reference")
    scored = one.collect(lm, batch(SIZES[:1], ["sea shells"]), Phases())
    _, count = one.rescore(lm, scored)
    assert scored.rollout.generation.ids == [lm.text_ids("sea shells")] and int(count) > 1


def test_collect_times_its_phases():
    lm, phases = trainable(), Phases()
    opd(lm).collect(lm, batch(SIZES[:2]), phases)
    assert set(phases.take()) == {"time/rollout", "time/teacher"}


# Samples and provided texts


def test_samples_are_scored_like_separate_clips_and_encoded_once(monkeypatch):
    lm, clips = trainable(), batch(SIZES[:3])
    one = opd(lm, temperature=1.0)
    torch.manual_seed(0)
    one.rollout = RolloutConfig(max_new_tokens=9, temperature=2.0, samples=3)
    scored = one.collect(lm, clips, Phases())
    assert scored.batch.ids == [name for name in clips.ids for _ in range(3)]
    calls, encode = [], type(lm).encode_audio
    monkeypatch.setattr(type(lm), "encode_audio", lambda self, w: calls.append(len(w)) or encode(self, w))
    total, count = one.rescore(lm, scored)
    assert calls == []  # the rollout encoded them
    monkeypatch.undo()
    scored.rollout.audio = [scored.rollout.audio[i] for i in scored.rollout.kept]  # one clip per sample
    scored.rollout.kept = list(range(9))
    for a, b in zip((total, count), one.rescore(lm, scored)):
        torch.testing.assert_close(a, b)
    measured = rates({name: float(value) for name, value in scored.sums.items()})
    stopped = [ids[-1] in lm.stop_ids for ids in scored.rollout.generation.ids]
    assert measured["stop_rate"] == pytest.approx(sum(stopped) / 9) and measured["share/student"] == 1


def test_sources_are_drawn_per_clip():
    lm, texts = trainable(), ["one", "two", "", "four", "five", "six"]
    one = opd(lm, mix={"student": 0.0, "teacher": 1.0, "reference": 1.0})
    torch.manual_seed(0)
    seen = set()
    for _ in range(4):
        scored = one.collect(lm, batch(SIZES, texts), Phases())
        for clip, ids, source in zip(
            scored.rollout.kept, scored.rollout.generation.ids, scored.rollout.sources, strict=True
        ):
            seen.add((clip, source))
            expected = {"teacher": "she sells", "reference": texts[clip]}
            assert source == "student" or ids == lm.text_ids(expected[source])
    # The teacher's transcript is empty for clips 1 and 4, and clip 2 has no text. The student transcribes these.
    assert seen == {(i, "teacher") for i in (0, 2, 3, 5)} | {(i, "reference") for i in (0, 1, 3, 4, 5)} | {
        (i, "student") for i in (1, 2, 4)
    }
    measured = rates({name: float(value) for name, value in scored.sums.items()})
    shares = [scored.rollout.sources.count(source) / 6 for source in ("student", "teacher", "reference")]
    assert [measured[f"share/{source}"] for source in ("student", "teacher", "reference")] == pytest.approx(shares)


@pytest.mark.parametrize("end", [{"stopped": False}, {"stopped": True, "looping": True}])
def test_cut_and_looping_transcripts_of_the_teacher_are_not_scored(end, capsys, monkeypatch):
    """After such a transcript a stop token would be wrong, so the student transcribes the clip."""
    lm, clips = trainable(), batch(SIZES[:3])
    one = opd(lm, mix={"teacher": 1.0})
    texts = [Transcript("the sea", stopped=True), Transcript("the sea", **end), "the sea"]
    monkeypatch.setattr(one.teacher, "transcribe", lambda waveforms, languages: texts)
    scored = one.collect(lm, clips, Phases())
    assert scored.rollout.sources == ["teacher", "student", "teacher"]
    assert "1 of 3 transcripts of the teacher are cut or looping" in capsys.readouterr().out


def test_step_runs_on_reference_texts_only():
    lm, clips = trainable(), batch(SIZES, ["the sea"] * 6)
    one = opd(lm, mix={"reference": 1.0})
    scored = one.collect(lm, clips, Phases())
    total, count = one.rescore(lm, scored)
    total.backward()
    assert scored.rollout.generation.ids == [lm.text_ids("the sea")] * 6 and int(count) > 6 and lm.head.grad.any()
    measured = rates({name: float(value) for name, value in scored.sums.items()})
    assert measured["share/reference"] == 1
    assert not {"stop_rate", "cut_rate", "empty_rate", "loop_rate"} & measured.keys()  # nothing was generated


# Diagnostics


def diagnosed(lm, one, clips):
    scored = one.collect(lm, clips, Phases())
    total, count = one.rescore(lm, scored, diagnose=True)
    return scored, total, count


def test_diagnostics_do_not_change_loss_or_gradient():
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


def test_kl_metric_equals_loss_at_temperature_1():
    lm, clips = trainable(), batch(SIZES)
    scored, total, count = diagnosed(lm, opd(lm), clips)
    assert scored.sums["kl/all#"] == int(count) and scored.sums["kl/all"] == pytest.approx(
        float(total.detach()), rel=1e-4
    )
    for names in (["correct", "wrong"], [f"decile_{i}" for i in range(10)], ["language_English"]):
        assert sum(scored.sums[f"kl/{name}"] for name in names) == pytest.approx(scored.sums["kl/all"])
    scored, _, _ = diagnosed(lm, opd(lm, temperature=2.0), clips)
    assert scored.sums["kl/all"] == pytest.approx(float(total.detach()), rel=1e-4)


def test_mass_entropy_and_stop_metrics_equal_reference():
    lm, clips = trainable(), batch(SIZES, ["the sea", "one", "sells", "two three", "dog", "fox"])
    scored, _, _ = diagnosed(
        lm, opd(lm, mix={"reference": 1.0}), clips
    )  # stops in rollouts of a random student are rarely aligned
    logged = rates({name: float(value) for name, value in scored.sums.items()})
    masses, entropies, early, late = [], [], [], []
    rows = iter(scored.support.student_ids[i][valid] for i, valid in enumerate(scored.support.valid))
    for clip, language, ids in zip(clips.waveforms, clips.languages, scored.rollout.generation.ids):
        p_s = full_logits(lm, clip, language, ids).masked_fill(lm.blocked, -torch.inf).softmax(-1)
        teacher_ids, pairs, _ = reference_alignment(ids)
        p_t = full_logits(frozen_teacher().lm, clip, language, teacher_ids).softmax(-1)
        for s, t in pairs:
            support = next(rows)
            if len(support) < 2:
                continue
            masses.append(float(p_s[s][support].sum()))
            entropies.append(float(-(p_s[s].clamp(min=1e-300).log() * p_s[s]).sum()))
            likely = float(p_t[t][frozen_teacher().stop_ids[0]]) >= 0.5
            (early if ids[s] in lm.stop_ids else late).append(likely == (ids[s] not in lm.stop_ids))
    assert logged["mass/student_support"] == pytest.approx(sum(masses) / len(masses), rel=1e-4)
    assert logged["entropy/student"] == pytest.approx(sum(entropies) / len(entropies), rel=1e-4)
    assert len(early) == 6 and logged["stop/early"] == pytest.approx(sum(early) / 6)
    assert logged["stop/late"] == pytest.approx(sum(late) / len(late))


def test_diagnostics_are_zero_if_student_equals_teacher():
    lm, same = (eager_to_stop(student(50), 2.0) for _ in range(2))
    scored, _, _ = diagnosed(lm, opd(lm, InMemory(same), Identity), batch(SIZES))
    logged = rates({name: float(value) for name, value in scored.sums.items()})
    assert logged["kl/all"] == pytest.approx(0, abs=1e-5) and logged["overlap_advantage"] == pytest.approx(0, abs=1e-5)
    assert logged["teacher_agreement"] > 0.9 and logged["mass/teacher_overlap"] > 0


def test_batch_of_skipped_clips_has_no_diagnostics():
    lm = empty_first()
    scored, _, count = diagnosed(lm, opd(lm, empty="skip"), batch(SIZES[:1]))
    assert int(count) == 0 and not any(name.startswith(("kl/", "mass/")) for name in scored.sums)
    measured = rates({name: float(value) for name, value in scored.sums.items()})
    assert not {"share/student", "mismatch_rate", "coverage"} & measured.keys()
