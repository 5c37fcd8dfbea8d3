"""Hotwords in decoding: our steps and transformers' generate give the same tokens, by one automaton."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from decoding import SIZES, prompts_of, same
from fake_gpu import DEVICE, fake_gpu
from hotword_reference import bonuses, reference_occurrences
from tiny import eager_to_stop, student, teacher

from arkasr.model.generation import (
    StepMode,
    choosing,
    engine,
    generate,
    generate_preferring,
    preferring,
    schedule,
    weights,
)
from arkasr.model.generation.batch import DecodingBatch
from arkasr.model.hotwords import HotwordProcessor, hotword_tables
from arkasr.model.hotwords.automaton import hotword_automaton
from arkasr.model.hotwords.phrases import phrases
from arkasr.model.tokenization import token_bytes
from arkasr.testing.host_reads import count_host_reads

HOTWORDS = ["the sea", "ship", "small boat"]
CAPS = [14, 3, 9, 17, 1, 12]
WEIGHT = 6.0  # of a model without training, whose logits lie close together


@pytest.fixture(scope="module", params=["ark", "qwen"])
def lm(request):
    return eager_to_stop(student(24) if request.param == "ark" else teacher(10), 2.0).requires_grad_(False)


LONG = ["the quick brown fox", "seven eight nine", "hello", "lazy dog", "by the sea shore", "today", "zzz yyy xxx"]


def tables_of(lm, hotwords=HOTWORDS, weight=WEIGHT):
    return hotword_tables(hotwords, lm.tokenizer, len(lm.blocked), weight)


def reference_greedy(lm, prompt, cap, automaton):
    """Return greedy ids from a full forward pass per step, with the bonus of the automaton on the host."""
    ids, state = [], 0
    while len(ids) < cap and not (ids and ids[-1] in lm.stop_ids):
        logits = reference_logits(lm, prompt, ids)
        ids.append(max(logits, key=lambda i: logits[i] + automaton.bonus(state, i)))
        state = automaton.next(state, ids[-1])
    return ids


def reference_logits(lm, prompt, ids):
    embed = lm.hf.get_input_embeddings().weight
    logits = lm.hf(inputs_embeds=torch.cat([prompt, embed[ids]])[None]).logits[0, -1].tolist()
    return {i: logits[i] for i in range(len(lm.tokenizer)) if not lm.blocked[i]}


def reference_preferring(lm, prompt, cap, automaton):
    """Return greedy ids, and how often decoding went back to the start of a hotword that it left unfinished."""
    ids, states, changed, plain, returns = [], [0], False, False, 0
    while len(ids) < cap and not (ids and ids[-1] in lm.stop_ids):
        logits, state = reference_logits(lm, prompt, ids), states[-1]
        own = max(logits, key=logits.get)
        pay_back = {i: automaton.refund(state, i) for i in logits}
        bonus = {i: -pay_back[i] if plain else automaton.bonus(state, i) for i in logits}
        best = max(logits, key=lambda i: logits[i] + bonus[i])
        goes_on = best in automaton.longer[state] and not plain
        left = 0 if goes_on else automaton.unfinished[state][automaton.begins[best]]
        if (changed or best != own) and left:
            ids, states = ids[: len(ids) - left], states[: len(states) - left]
            changed, plain, returns = True, True, returns + 1
            continue
        ids.append(best)
        states.append(int(automaton.ends[best]) if plain else automaton.next(state, best))
        changed, plain = (changed or best != own) and any(automaton.unfinished[states[-1]]), False
    return ids, returns


def test_generate_with_hotwords_matches_decoding_without_a_cache(lm):
    prompts, automaton = prompts_of(lm), hotword_automaton(HOTWORDS, lm.tokenizer, WEIGHT)
    found = generate(lm, prompts, CAPS, hotwords=tables_of(lm))
    assert found.ids == [reference_greedy(lm, prompt, cap, automaton) for prompt, cap in zip(prompts, CAPS)]
    assert found.ids != generate(lm, prompts, CAPS).ids
    assert any(bonus > 0 for ids in found.ids for bonus in bonuses(automaton, ids))


@pytest.mark.slow
def test_unfinished_hotwords_are_taken_back(lm):
    prompts, automaton = prompts_of(lm), hotword_automaton(LONG, lm.tokenizer, 3.0)
    tables, caps = tables_of(lm, LONG, 3.0), [30, 3, 25, 40, 1, 0]
    found = generate_preferring(lm, prompts, caps, tables)
    expected = [reference_preferring(lm, prompt, cap, automaton) for prompt, cap in zip(prompts, caps)]
    assert found.ids == [ids for ids, _ in expected] and max(returns for _, returns in expected) > 1
    assert found.stopped == [bool(ids) and ids[-1] in lm.stop_ids for ids in found.ids]
    assert found.ids != generate(lm, prompts, caps, hotwords=tables).ids


@pytest.mark.parametrize("returns", [0, 1])
def test_decoding_that_returns_too_often_goes_on_without_hotwords(returns, monkeypatch):
    lm = student(24).requires_grad_(False)
    prompts, tables = prompts_of(lm)[:4], tables_of(lm, LONG, 3.0)
    monkeypatch.setattr(preferring, "MOST_RETURNS", returns)
    found, plain = generate_preferring(lm, prompts, [20] * 4, tables), generate(lm, prompts, [20] * 4)
    assert (found.ids == plain.ids) == (returns == 0) and [len(ids) for ids in found.ids] == [20] * 4
    assert found.stopped == [False] * 4


@pytest.mark.slow
@pytest.mark.parametrize("weight", [1.0, 3.0, 6.0])
def test_only_whole_hotwords_change_a_transcript(lm, weight):
    """Each token that is not the model's own lies in a whole hotword or directly behind one."""
    automaton, prompts = hotword_automaton(LONG, lm.tokenizer, weight), prompts_of(lm)[:4]
    sequences = phrases(LONG, lm.tokenizer, token_bytes(lm.tokenizer))
    for prompt, ids in zip(prompts, generate_preferring(lm, prompts, [25] * 4, tables_of(lm, LONG, weight)).ids):
        whole = reference_occurrences(sequences, ids, automaton.begins, automaton.ends)
        allowed = {place for start, each in whole for place in range(start, start + len(each.ids) + 1)}
        for place, token in enumerate(ids[:20]):  # the last hotword may be cut at the cap
            logits = reference_logits(lm, prompt, ids[:place])
            assert place in allowed or token == max(logits, key=logits.get)


def test_processor_of_transformers_gives_the_same_tokens(lm):
    """The prompts are embedded, so transformers' ids begin with the transcript."""
    prompts, cap = prompts_of(lm), 15
    expected = generate(lm, prompts, [cap] * len(prompts), hotwords=tables_of(lm)).ids
    options = {"max_new_tokens": cap, "do_sample": False, "eos_token_id": lm.stop_ids, "pad_token_id": lm.stop_ids[0]}
    options |= {"suppress_tokens": lm.suppressed_ids}
    for prompt, ids in zip(prompts, expected):
        processor = HotwordProcessor(HOTWORDS, lm.tokenizer, 0, WEIGHT)
        found = lm.hf.generate(inputs_embeds=prompt[None], logits_processor=[processor], **options)
        assert found[0].tolist() == ids


def test_processor_skips_the_prompt_and_reads_rows_of_a_batch():
    tokenizer = student(4).tokenizer
    automaton = hotword_automaton(HOTWORDS, tokenizer, 2.0)
    texts = [
        tokenizer.encode(text, add_special_tokens=False) for text in ("a ship at sea", "the sea the sea the", "sh")
    ]
    length = min(map(len, texts))
    ids = torch.tensor([[5, 6, *row[:length]] for row in texts])
    scores = torch.zeros(len(texts), len(tokenizer) + 3)
    found = HotwordProcessor(HOTWORDS, tokenizer, 2, 2.0)(ids, scores)
    assert torch.equal(scores, torch.zeros_like(scores))
    for row, text in zip(found, texts):
        state = 0
        for token in text[:length]:
            state = automaton.next(state, token)
        assert row.tolist()[: len(tokenizer)] == [automaton.bonus(state, token) for token in range(len(tokenizer))]


@pytest.mark.parametrize("every", [1, 3])
def test_hotwords_do_not_depend_on_batch_composition(lm, every, monkeypatch):
    prompts, tables = prompts_of(lm), tables_of(lm)
    alone = [generate(lm, [prompt], [cap], hotwords=tables).ids[0] for prompt, cap in zip(prompts, CAPS)]
    shapes = replace(schedule.GPU, length=lambda n: -(-n // 32) * 32, every=every)
    for used in (replace(schedule.CPU, every=every), shapes):
        monkeypatch.setattr(schedule, "CPU", used)
        assert generate(lm, prompts, CAPS, hotwords=tables).ids == alone


def test_hotwords_read_nothing_on_the_host_per_step(monkeypatch):
    lm = student(10)  # its transcripts run to the token cap
    prompts, counts = prompts_of(lm), []
    monkeypatch.setattr(schedule, "CPU", replace(schedule.CPU, every=10))
    for hotwords in (None, tables_of(lm, weight=1.0)):
        with count_host_reads() as reads:
            generate(lm, prompts, [20] * len(SIZES), hotwords=hotwords)
        counts.append(reads.total)
    assert counts[0] == counts[1]


def test_decoding_without_hotwords_is_unchanged_after_a_call_with_hotwords(lm):
    prompts = prompts_of(lm)
    before = generate(lm, prompts, CAPS, 3)
    generate(lm, prompts, CAPS, 3, hotwords=tables_of(lm))
    assert same(generate(lm, prompts, CAPS, 3), before)


class Pool:
    """Captures execute nothing, and replaying takes the recorded step."""

    captures = 0

    def capture(self, step, generator):
        self.captures += 1
        return SimpleNamespace(replay=step)


def test_captured_steps_serve_other_hotwords_of_the_same_shape():
    lm = student(24).requires_grad_(False)
    prompts, tables = prompts_of(lm), [tables_of(lm, [word]) for word in ("ship", "shop")]
    assert tables[0].shape == tables[1].shape
    kept = engine.Engine(weights.current_weights(lm))
    kept.pool, held, found = Pool(), [], []
    with torch.no_grad():
        for each in tables:
            held.append(kept.hotwords(each))
            choice, lengths = choosing.Choice(hotwords=held[-1]), [len(prompt) for prompt in prompts]
            batch = DecodingBatch(kept, replace(schedule.GPU, every=100), choice, lengths, [17] * len(prompts), 0)
            batch.read_prompts(prompts)
            batch.run(StepMode())
            found.append(batch.ids.tolist())
    assert held[0] is held[1] and kept.pool.captures == 1
    for each, ids in zip(tables, found):
        expected = generate(lm, prompts, [17] * len(prompts), hotwords=each).ids
        assert [row[: len(own)] for row, own in zip(ids, expected)] == expected
    assert found[0] != found[1]


def test_tables_stay_on_the_gpu():
    tables = tables_of(student(4))
    with fake_gpu():
        on_gpu, states = tables.to(DEVICE), torch.zeros(3, dtype=torch.long, device=DEVICE)
        logits = torch.zeros(3, len(tables.outside), device=DEVICE)
        bonus, following = on_gpu.add_bonus(logits, states), on_gpu.next(states, states)
    assert (bonus.device, bonus.dtype, following.device, following.dtype) == (DEVICE, torch.float32, DEVICE, torch.long)
    assert bonus.shape == (3, len(student(4).blocked))
