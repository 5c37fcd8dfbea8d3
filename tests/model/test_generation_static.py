"""Decoding with few shapes, captured or compiled steps, and copies of the weights, against plain decoding."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from decoding import plain_sampling, prompts_of, same
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import eager_to_stop, student, teacher
from tiny_teachers import glm

from arkasr.errors import UserError
from arkasr.model.generation import (
    StepMode,
    cache,
    choosing,
    decoding,
    engine,
    generate,
    schedule,
    step_runner,
    weights,
)
from arkasr.model.generation.state import DecodingState
from arkasr.testing.host_reads import count_host_reads, forbid_host_reads

ROOT = Path(__file__).parents[2]
CAPS = [14, 3, 9, 17, 1, 12]
SMALL_SHAPES = replace(schedule.GPU, length=lambda n: -(-n // 32) * 32, every=3)
MODELS = {"qwen2": lambda: student(24), "qwen3": lambda: teacher(10), "llama": lambda: glm()}
FACTORS = {"qwen2": 2.0, "qwen3": 2.0, "llama": 8.0}  # make some transcripts stop
DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(scope="module", params=[(name, dtype) for name in MODELS for dtype in DTYPES], ids=str)
def lm(request):
    name, dtype = request.param
    return eager_to_stop(MODELS[name](), FACTORS[name]).to(dtype).requires_grad_(False)


def draw(lm, prompts, caps, temperature=0.0, **options):
    generator = torch.Generator().manual_seed(4) if temperature else None
    return generate(lm, prompts, caps, 4, temperature, generator, **options)


def test_shapes_of_a_gpu_give_the_same_transcripts(lm, monkeypatch):
    prompts = prompts_of(lm)
    expected = draw(lm, prompts, CAPS)
    monkeypatch.setattr(schedule, "CPU", SMALL_SHAPES)
    found = draw(lm, prompts, CAPS)
    assert found.ids == expected.ids and found.stopped == expected.stopped
    if lm.head.dtype == torch.float32:
        assert torch.equal(found.topk, expected.topk)
    assert len({len(ids) for ids in found.ids}) > 2 and any(found.stopped)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("shrink", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("every", [1, 4])
def test_rows_leave_at_any_time_without_a_change(late, shrink, every, monkeypatch):
    lm = eager_to_stop(student(24), 2.0)
    prompts = prompts_of(lm)
    expected = draw(lm, prompts, CAPS)
    monkeypatch.setattr(schedule, "CPU", replace(SMALL_SHAPES, late=late, shrink=shrink, every=every))
    assert same(draw(lm, prompts, CAPS), expected)


@pytest.mark.parametrize("shapes", [schedule.CPU, SMALL_SHAPES], ids=["cpu", "gpu"])
@pytest.mark.parametrize("kept", [False, True])
def test_memory_that_grows_gives_the_same_transcripts(shapes, kept, lm, monkeypatch):
    """Rows leave and slots are added in turn, in new memory or in the memory of an earlier, larger batch."""
    prompts, caps = prompts_of(lm), [cap + 90 * (cap == 17) for cap in CAPS]
    monkeypatch.setattr(schedule, "CPU", replace(shapes, ahead=1000))
    if kept:
        one = engine.Engine(weights.current_weights(lm))
        monkeypatch.setattr(decoding, "engine_of", lambda *_, **__: one)
    expected = draw(lm, prompts, caps)
    monkeypatch.setattr(schedule, "CPU", replace(shapes, ahead=2))
    assert same(draw(lm, prompts, caps), expected) and max(map(len, expected.ids)) > 4


def test_a_large_token_cap_costs_no_memory(monkeypatch):
    lm, sizes = eager_to_stop(student(24), 2.0), []
    prompts = prompts_of(lm)
    ends = [clip for clip, stopped in enumerate(draw(lm, prompts, [20] * 6).stopped) if stopped]
    make = engine.DecodingState
    monkeypatch.setattr(engine, "DecodingState", lambda *args: sizes.append(args[1].shape[4]) or make(*args))
    result = draw(lm, [prompts[clip] for clip in ends], [100_000] * len(ends))
    assert ends and all(result.stopped) and max(sizes) == max(len(prompts[i]) for i in ends) + schedule.CPU.ahead


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 14)), min_size=1, max_size=9), st.integers(1, 5))
def test_any_batch_gives_what_each_clip_gives_alone(chosen, every):
    lm = _shared()
    prompts, before = prompts_of(lm), schedule.CPU
    alone = [generate(lm, [prompts[i]], [cap], 2) for i, cap in chosen]
    schedule.CPU = replace(SMALL_SHAPES, every=every)
    try:
        found = generate(lm, [prompts[i] for i, _ in chosen], [cap for _, cap in chosen], 2)
    finally:
        schedule.CPU = before
    assert found.ids == [one.ids[0] for one in alone] and found.stopped == [one.stopped[0] for one in alone]
    assert torch.equal(found.topk, torch.cat([one.topk for one in alone]))


_models = {}


def _shared():
    return _models.setdefault("shared", eager_to_stop(student(24), 2.0))


@pytest.mark.parametrize("top_p", [1.0, 0.7])
@pytest.mark.parametrize("name", MODELS)
def test_samples_equal_those_without_a_cache_of_the_same_generator(name, top_p):
    lm = eager_to_stop(MODELS[name](), FACTORS[name])
    prompts = prompts_of(lm)
    found = generate(lm, prompts, CAPS, 2, 1.3, torch.Generator().manual_seed(7), top_p)
    expected = plain_sampling(lm, prompts, CAPS, 1.3, torch.Generator().manual_seed(7), top_p)
    assert found.ids == expected
    assert found.stopped == [ids[-1] in lm.stop_ids for ids in expected] and len({len(i) for i in found.ids}) > 2


def test_samples_with_the_shapes_of_a_gpu_come_from_the_same_distribution(monkeypatch):
    lm, [prompt] = _shared(), prompts_of(_shared(), [8000])
    monkeypatch.setattr(schedule, "CPU", SMALL_SHAPES)
    number = 2000
    result = generate(lm, [prompt] * number, [1] * number, 1, 0.7, torch.Generator().manual_seed(3))
    with torch.no_grad():
        logits = lm.hf(inputs_embeds=prompt[None]).logits[0, -1].double()
    expected = (logits.masked_fill(lm.blocked, -torch.inf) / 0.7).softmax(0)
    drawn = torch.tensor([ids[0] for ids in result.ids]).bincount(minlength=len(expected)) / number
    assert (drawn - expected).abs().max() < 4 * (0.25 / number) ** 0.5


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_step_reads_nothing_on_the_host(lm, temperature):
    state, choice = prefilled(lm, temperature), choosing.Choice(temperature, 0.9)
    with torch.no_grad(), forbid_host_reads():
        for step in range(3):
            state.advance(64 + step)
            state.choose(state.logits(), choice)


def prefilled(lm, temperature=0.0):
    prompts = prompts_of(lm)
    current = weights.current_weights(lm)
    state = engine.Engine(current).state(len(prompts), 128, 4)
    embeds = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
    lengths = torch.tensor([len(p) for p in prompts])
    with torch.no_grad():
        state.prefill(embeds, lengths, torch.full_like(lengths, 60), choosing.Choice(temperature))
    return state


def test_generate_reads_per_look_not_per_token(monkeypatch):
    lm = student(10)  # its transcripts run to the token cap
    prompts, reads = prompts_of(lm), []
    monkeypatch.setattr(schedule, "CPU", replace(schedule.GPU, every=10))
    for cap in (20, 60):
        with count_host_reads() as counts:
            result = generate(lm, prompts, [cap] * len(prompts), 4)
        reads.append(counts.total)
        assert max(map(len, result.ids)) == cap
    assert reads[0] <= 5 and reads[1] - reads[0] <= 4  # one read per look


def test_the_step_keeps_all_addresses():
    state = prefilled(student(10))
    tensors = [state.token, state.count, state.ids, state.topk, state.limits, state.done, state.slots.position]
    before = [tensor.data_ptr() for tensor in tensors]
    with torch.no_grad():
        state.advance(64)
        state.choose(state.logits(), choosing.Choice())
    assert before == [tensor.data_ptr() for tensor in tensors]


def test_bucket_sizes():
    rows = [schedule.rows_bucket(n) for n in range(1, 200)]
    assert all(n <= size < 1.25 * n or size == n for n, size in enumerate(rows, 1))
    assert len(set(rows)) < 28 and rows[39] == 40 and rows[:8] == list(range(1, 9))
    assert [schedule.length_bucket(n) for n in (1, 256, 257)] == [256, 256, 512]


# Captured and compiled steps


class FakePool:
    """Captures as a GPU does: capturing executes nothing, and replaying takes the recorded step."""

    def __init__(self, state: DecodingState):
        self.state, self.captures = state, 0

    def capture(self, step, generator):
        tensors = [v for v in [*vars(self.state).values(), *vars(self.state.slots).values()] if torch.is_tensor(v)]
        before = [tensor.clone() for tensor in tensors]
        step()
        for tensor, old in zip(tensors, before):
            tensor.copy_(old)
        self.captures += 1
        return SimpleNamespace(replay=step)


class FailingPool:
    def capture(self, step, generator):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


def test_warm_up_capture_and_replay_take_the_same_steps(monkeypatch):
    monkeypatch.setattr(step_runner.StepRunner, "failed", set())
    lm = student(10)
    expected, state, span = prefilled(lm), prefilled(lm), 100
    pool = FakePool(state)
    runner = step_runner.StepRunner(state, span, choosing.Choice(), StepMode(), pool)
    with torch.no_grad():
        for _ in range(12):
            runner()
            expected.advance(span)
            expected.choose(expected.logits(), choosing.Choice())
    assert pool.captures == 1 and torch.equal(state.ids, expected.ids)
    assert torch.equal(state.topk, expected.topk) and torch.equal(state.slots.position, expected.slots.position)


def test_a_failed_capture_is_logged_once_and_changes_nothing(monkeypatch, capsys):
    monkeypatch.setattr(step_runner.StepRunner, "failed", set())
    lm, states = student(10), [prefilled(student(10))]
    pool = FakePool(states[0])
    captured = step_runner.StepRunner(states[0], 100, choosing.Choice(), StepMode(), pool)
    with torch.no_grad():
        for _ in range(3):
            captured()
    assert captured.graph is not None
    for _ in range(2):
        state = prefilled(lm)
        runner = step_runner.StepRunner(state, 100, choosing.Choice(), StepMode(), FailingPool())
        with torch.no_grad():
            for _ in range(6):
                runner()
        states.append(state)
    with torch.no_grad():
        for _ in range(3):
            captured()
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("decoding without a CUDA graph, which failed: RuntimeError") == 1
    assert captured.graph is not None and pool.captures == 1  # earlier captures are used on
    assert all(torch.equal(state.ids, states[0].ids) and int(state.count) == 7 for state in states)


COMPILED = """
import torch
from decoding import prompts_of
from tiny import eager_to_stop, student
from arkasr.model.generation import StepMode, generate, schedule, step_runner

lm, schedule.CPU = eager_to_stop(student(10), 2.0), schedule.GPU
for temperature in (0.0, 1.5):
    draw = lambda mode: generate(
        lm, prompts_of(lm), [14, 3, 9, 17, 1, 12], 4, temperature, torch.Generator().manual_seed(4), mode=mode
    )
    assert draw(StepMode("on")).ids == draw(StepMode()).ids and not step_runner.StepRunner.failed
print("equal")
"""


@pytest.mark.slow
def test_the_compiled_step_gives_the_same_transcripts():
    """In a process of its own: torch.compile refuses to load setuptools after the standard library's distutils."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests/helpers")])
    command = [sys.executable, "-c", COMPILED]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("equal\n"), done.stdout + done.stderr


def test_a_failed_compilation_is_logged_once_and_changes_nothing(monkeypatch, capsys):
    monkeypatch.setattr(step_runner.StepRunner, "failed", set())

    def failing(function, **options):
        def compiled():
            raise ValueError("no compiler")

        return compiled

    lm = eager_to_stop(student(10), 2.0)
    prompts = prompts_of(lm)
    expected = draw(lm, prompts, CAPS)
    monkeypatch.setattr(torch, "compile", failing)
    assert same(draw(lm, prompts, CAPS, mode=StepMode("on")), expected)
    assert same(draw(lm, prompts, CAPS, mode=StepMode("on")), expected)
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("decoding without torch.compile, which failed: ValueError") == 1


# Other attention implementations and decoders


@pytest.mark.parametrize(("sizes", "masked"), [([9000], False), ([9000] * 3, False), ([9000, 16000], True)])
def test_rows_of_equal_length_need_no_mask(sizes, masked, monkeypatch):
    lm, calls, mask = eager_to_stop(student(10), 2.0), [], cache.Slots.mask
    prompts = prompts_of(lm, sizes)
    expected = [generate(lm, [prompt], [9], 2).ids[0] for prompt in prompts]
    monkeypatch.setattr(cache.Slots, "mask", lambda slots: calls.append(1) or mask(slots))
    assert generate(lm, prompts, [9] * len(prompts), 2).ids == expected and bool(calls) == masked


def test_eager_attention_gives_the_same_transcripts():
    lm = eager_to_stop(student(10), 2.0)
    prompts = prompts_of(lm)
    expected = draw(lm, prompts, CAPS)
    lm.hf.set_attn_implementation("eager")
    assert same(draw(lm, prompts, CAPS), expected)


def test_an_attention_without_masks_is_refused():
    lm = student(10)
    prompts = prompts_of(lm)
    lm.hf.model.language_model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(UserError, match="'flash_attention_2': cannot generate .* sdpa and eager"):
        weights_mask(lm, prompts)


def weights_mask(lm, prompts):
    state = engine.Engine(weights.current_weights(lm)).state(1, 64, 0)
    state.advance(3)
    return state.logits()


def test_sliding_windows_are_refused():
    lm = student(10)
    lm.hf.config.text_config.layer_types = ["sliding_attention", "full_attention"]
    with pytest.raises(UserError, match="layers of type sliding_attention: .* only full_attention"):
        generate(lm, prompts_of(student(10)), CAPS)


def test_the_cache_reports_its_sizes():
    slots = cache.Slots(2, 8, torch.device("cpu"))
    layer = cache.LayerCache(torch.zeros(2, 1, 8, 4), torch.zeros(2, 1, 8, 4), slots)
    assert layer.get_mask_sizes(5) == (5, 0) and layer.get_seq_length() == 0 and layer.get_max_length() == 8


def test_prompts_of_a_diverged_batch_do_not_reach_the_next_one(monkeypatch):
    """Attention multiplies masked slots by 0, which would keep NaN."""
    lm = _shared()
    prompts = prompts_of(lm)
    monkeypatch.setattr(schedule, "CPU", SMALL_SHAPES)
    kept = engine.Engine(weights.current_weights(lm))
    monkeypatch.setattr(decoding, "engine_of", lambda *_, **__: kept)
    expected = draw(lm, prompts, CAPS)
    draw(lm, [torch.full_like(p, torch.nan) for p in prompts], [30] * 6)
    assert same(draw(lm, prompts, CAPS), expected)
