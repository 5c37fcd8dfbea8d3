"""The student through torch.compile, torch.export and transformers' exporter, without a graph break."""

from __future__ import annotations

import pytest
import torch
from tiny import student, waveform
from transformers.exporters.exporter_dynamo import DynamoConfig, DynamoExporter

from arkasr.errors import UserError
from arkasr.testing.host_reads import count_host_reads

FILLER = 9  # token before the shorter prompts


def inputs(lm, sizes=(16000, 8000), drop=0):
    """Prompts, features and masks of clips. `drop` removes audio tokens of the first prompt."""
    mel, mask = lm.features([waveform(n, seed) for seed, n in enumerate(sizes)])
    counts = lm.count_audio_tokens(mask.sum(-1).tolist())
    counts[0] -= drop
    prompts = [[5, *[lm.hf.config.audio_token_id] * n, 7, 8] for n in counts]
    longest = max(map(len, prompts))
    ids = torch.tensor([[FILLER] * (longest - len(p)) + p for p in prompts])
    return {
        "input_ids": ids,
        "input_features": mel,
        "input_features_mask": mask,
        "attention_mask": (ids != FILLER).long(),
    }


@pytest.fixture(scope="module")
def lm():
    return student(3)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.slow
@torch.no_grad()
def test_forward_is_one_graph_for_torch_compile(lm):
    batch = inputs(lm)
    report = torch._dynamo.explain(lm.hf)(**batch)
    assert (report.graph_count, report.graph_break_count) == (1, 0)
    compiled = torch.compile(lm.hf, backend="eager", fullgraph=True)
    for each in (batch, inputs(lm, (12000, 20000, 700))):
        torch.testing.assert_close(compiled(**each).logits, lm.hf(**each).logits, atol=1e-6, rtol=1e-6)


@pytest.mark.slow
@torch.no_grad()
def test_forward_can_be_exported(lm):
    batch = inputs(lm) | {"use_cache": False}
    other = inputs(lm, (15000, 16100)) | {"use_cache": False}  # the same shapes, other lengths
    assert all(other[name].shape == batch[name].shape for name in batch if name != "use_cache")
    program = torch.export.export(lm.hf, (), batch, strict=False).module()
    for each in (batch, other):
        torch.testing.assert_close(program(**each).logits, lm.hf(**each).logits, atol=1e-6, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
@torch.no_grad()
def test_transformers_exporter_gives_the_same_logits(lm, dynamic):
    batch = inputs(lm)
    program = DynamoExporter().export(lm.hf, batch, config=DynamoConfig(dynamic=dynamic))
    torch.testing.assert_close(program(**batch).logits, lm.hf(**batch).logits, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_eager_forward_compares_prompts_and_clips_by_one_host_read(lm):
    batch = inputs(lm)
    with count_host_reads() as reads:
        lm.hf.model(**batch)
    places = [place for place in reads.by_place if "modeling_arkasr" in place and "tolist" in place]
    assert [reads.by_place[place] for place in places] == [1]
    with pytest.raises(UserError, match="audio tokens per row, but the clips have"):
        lm.hf(**inputs(lm, drop=1))


@torch.no_grad()
def test_eager_forward_returns_the_audio_embeddings(lm):
    batch = inputs(lm)
    expected = lm.hf.model.get_audio_features(batch["input_features"], batch["input_features_mask"]).pooler_output
    for hf in (lm.hf, lm.hf.model):
        torch.testing.assert_close(hf(**batch).audio_hidden_states, expected, atol=1e-6, rtol=1e-6)
    assert isinstance(lm.hf(**batch, return_dict=False), tuple)
