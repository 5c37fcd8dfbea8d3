"""The student against a slow reference implementation in float64, and against Hugging Face's generate and loading."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import ARK_SIZES, student
from transformers import AutoConfig, AutoModelForCausalLM

from arkasr.errors import UserError
from arkasr.model.arkasr.configuration_arkasr import ArkasrConfig
from arkasr.model.arkasr.modeling_arkasr import ArkasrForConditionalGeneration, num_audio_tokens
from arkasr.model.generation import generate


def mel(frames, seed=0, num_mel=16):
    """Random features [M, T]."""
    return torch.randn(num_mel, frames, generator=torch.Generator().manual_seed(seed))


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def layer_norm(w, name, x):
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def rms_norm(weight, x):
    return weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def linear(w, name, x):
    y = x @ w[f"{name}.weight"].T
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def convolution(w, name, x, stride):
    """Convolve x [C, T] to [D, ceil(T / stride)] with kernel 3 and padding 1, one frame at a time."""
    kernel, frames = w[f"{name}.weight"], x.shape[1]
    x = torch.cat([x[:, :1] * 0, x, x[:, :1] * 0], dim=1)
    columns = [torch.einsum("dck,ck->d", kernel, x[:, t : t + 3]) for t in range(0, frames, stride)]
    return torch.stack(columns, dim=1) + w[f"{name}.bias"][:, None]


def rotated(x, theta, size):
    """Rotate the pairs (i, i + size/2) of the first `size` dimensions of x [T, D] by their positions."""
    result = x.clone()
    for t in range(len(x)):
        for i in range(size // 2):
            angle = t * theta ** (-2 * i / size)
            a, b = x[t, i], x[t, i + size // 2]
            result[t, i] = a * math.cos(angle) - b * math.sin(angle)
            result[t, i + size // 2] = a * math.sin(angle) + b * math.cos(angle)
    return result


def attention(w, name, x, heads, groups, theta, size, causal):
    """Attend one head at a time, with `groups` query heads per key and value head, and project by `o_proj`."""
    q, k, v = (linear(w, f"{name}.{part}_proj", x) for part in "qkv")
    width, outputs = q.shape[1] // heads, []
    for head in range(heads):
        shared = head // groups
        queries = rotated(q[:, head * width : (head + 1) * width], theta, size)
        keys = rotated(k[:, shared * width : (shared + 1) * width], theta, size)
        weights = queries @ keys.T / math.sqrt(width)
        if causal:
            weights = weights + torch.full_like(weights, -torch.inf).triu(1)
        outputs.append(weights.softmax(-1) @ v[:, shared * width : (shared + 1) * width])
    return linear(w, f"{name}.o_proj", torch.cat(outputs, dim=1))


def reference_audio(w, features):
    """Compute the audio embeddings [N, H] of mel [M, T] of one clip (arXiv 2605.28139, section 3.1)."""
    x = gelu(convolution(w, "model.audio_tower.conv1", features.double(), 1))
    x = gelu(convolution(w, "model.audio_tower.conv2", x, 2)).T
    for n in range(2):
        name = f"model.audio_tower.layers.{n}"
        x = x + attention(w, f"{name}.self_attn", layer_norm(w, f"{name}.input_layernorm", x), 2, 1, 1e4, 8, False)
        hidden = gelu(linear(w, f"{name}.mlp.fc1", layer_norm(w, f"{name}.post_attention_layernorm", x)))
        x = x + linear(w, f"{name}.mlp.fc2", hidden)
    x = layer_norm(w, "model.audio_tower.norm", x)
    if len(x) < 4:
        x = torch.cat([x, x.new_zeros(4 - len(x), x.shape[1])])
    rows = [torch.cat([x[4 * n + i] for i in range(4)]) for n in range(len(x) // 4)]
    name = "model.multi_modal_projector"
    return linear(w, f"{name}.linear_2", gelu(linear(w, f"{name}.linear_1", torch.stack(rows))))


def reference_logits(w, ids, audio_id, audio):
    """Compute the logits [S, V] of one prompt."""
    x = torch.stack([w["model.language_model.embed_tokens.weight"][i] for i in ids])
    x[[s for s, i in enumerate(ids) if i == audio_id]] = audio
    for n in range(2):
        name = f"model.language_model.layers.{n}"
        normed = rms_norm(w[f"{name}.input_layernorm.weight"], x)
        x = x + attention(w, f"{name}.self_attn", normed, 4, 2, 1e6, 6, True)
        normed = rms_norm(w[f"{name}.post_attention_layernorm.weight"], x)
        gate = linear(w, f"{name}.mlp.gate_proj", normed)
        up = linear(w, f"{name}.mlp.up_proj", normed)
        x = x + linear(w, f"{name}.mlp.down_proj", gate * torch.sigmoid(gate) * up)
    return rms_norm(w["model.language_model.norm.weight"], x) @ w["model.language_model.embed_tokens.weight"].T


def weights(lm):
    return {name: tensor.detach().double() for name, tensor in lm.hf.state_dict().items()}


def prompt_ids(lm, frames):
    """Return the ids of the prompt with its placeholders."""
    before, after = lm.prompt_text("English")
    text = before + "<|audio|>" * max((frames + 1) // 2 // 4, 1) + after
    return lm.tokenizer.encode(text, add_special_tokens=False)


@pytest.fixture(scope="module")
def lm():
    model = student(3)
    with torch.no_grad():  # fresh norms and biases are trivial; change them so that they affect the output
        for name, weight in model.hf.named_parameters():
            if weight.ndim == 1:
                weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))))
    return model


@pytest.mark.parametrize("frames", range(1, 49))
def test_get_audio_features_matches_the_reference(lm, frames):
    with torch.no_grad():
        got = lm.hf.model.get_audio_features(mel(frames)[None], torch.ones(1, frames, dtype=torch.long)).pooler_output
        expected = reference_audio(weights(lm), mel(frames))
    assert len(got) == len(expected) == max((frames + 1) // 2 // 4, 1) == num_audio_tokens(frames)
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frames", [3, 16, 37, 48])
def test_logits_match_the_reference(lm, frames):
    ids = prompt_ids(lm, frames) + lm.tokenizer.encode("the sea")
    with torch.no_grad():
        got = lm.hf(
            input_ids=torch.tensor([ids]),
            input_features=mel(frames)[None],
            input_features_mask=torch.ones(1, frames, dtype=torch.long),
        ).logits[0]
        w = weights(lm)
        expected = reference_logits(w, ids, lm.hf.config.audio_token_id, reference_audio(w, mel(frames)))
    assert expected.std() > 0.1
    torch.testing.assert_close(got.double(), expected, atol=2e-5, rtol=1e-5)


def test_num_audio_tokens_agrees_for_tensors_and_integers():
    frames = torch.arange(1, 400)
    expected = [max(math.ceil(t / 2) // 4, 1) for t in range(1, 400)]
    assert num_audio_tokens(frames).tolist() == [num_audio_tokens(t) for t in range(1, 400)] == expected
    assert num_audio_tokens(1205) == 150 and num_audio_tokens(3000) == 375


def batched(lm, lengths, mask_padding):
    """Encode clips with these frame counts as one batch with large values in the padding."""
    features = torch.full((len(lengths), 16, max(lengths)), 7.0)
    mask = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, frames in enumerate(lengths):
        features[row, :, :frames], mask[row, :frames] = mel(frames, seed=row), 1
    lm.hf.config.mask_padding = mask_padding
    with torch.no_grad():
        rows = lm.hf.model.get_audio_features(features, mask).pooler_output
    lm.hf.config.mask_padding = True
    return rows.split([num_audio_tokens(t) for t in lengths])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("lengths", [[3, 5, 8, 48], [17, 33], [47, 48, 1], [6, 6]])
def test_get_audio_features_does_not_depend_on_batch_composition(lm, lengths, attention):
    lm.hf.set_attn_implementation(attention)
    rows = batched(lm, lengths, True)
    lm.hf.set_attn_implementation("sdpa")
    for row, (frames, got) in enumerate(zip(lengths, rows)):
        torch.testing.assert_close(
            got.double(), reference_audio(weights(lm), mel(frames, seed=row)), atol=1e-5, rtol=1e-5
        )


def test_get_audio_features_without_mask_attends_to_padding(lm):
    masked, unmasked = batched(lm, [17, 48], True), batched(lm, [17, 48], False)
    torch.testing.assert_close(masked[1], unmasked[1], atol=1e-5, rtol=0)
    padded = torch.cat([mel(17), torch.full((16, 31), 7.0)], dim=1)
    torch.testing.assert_close(unmasked[0].double(), reference_audio(weights(lm), padded)[:2], atol=1e-5, rtol=1e-5)
    assert (masked[0] - unmasked[0]).abs().max() > 1e-2


def test_gradient_reaches_every_weight(lm):
    lm.hf.zero_grad()
    ids = torch.tensor([prompt_ids(lm, 16)])
    mask = torch.ones(1, 16, dtype=torch.long)
    lm.hf(input_ids=ids, input_features=mel(16)[None], input_features_mask=mask).logits.square().sum().backward()
    without = [name for name, p in lm.hf.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_hugging_face_generate_matches_arkasr_generate(lm):
    lengths = [33, 48, 12]
    prompts = [prompt_ids(lm, frames) for frames in lengths]
    longest = max(map(len, prompts))
    ids = torch.tensor([[lm.tokenizer.pad_token_id] * (longest - len(p)) + p for p in prompts])
    attend = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    features, mask = torch.zeros(3, 16, 48), torch.zeros(3, 48, dtype=torch.long)
    for row, frames in enumerate(lengths):
        features[row, :, :frames], mask[row, :frames] = mel(frames, seed=row), 1
    expected_ids = lm.hf.generate(
        input_ids=ids,
        attention_mask=attend,
        input_features=features,
        input_features_mask=mask,
        do_sample=False,
        max_new_tokens=11,
        suppress_tokens=lm.blocked.nonzero()[:, 0].tolist(),
        eos_token_id=lm.stop_ids,
        pad_token_id=lm.tokenizer.pad_token_id,
    )[:, longest:]
    with torch.no_grad():
        audio = lm.hf.model.get_audio_features(features, mask).pooler_output.split(lm.count_audio_tokens(lengths))
        result = generate(lm, lm.embed_prompts(audio, ["English"] * 3), [11] * 3)
    assert len({tuple(got) for got in result.ids}) == 3
    for row, (got, expected) in enumerate(zip(result.ids, expected_ids.tolist())):
        assert got == expected[: len(got)], row
        assert len(got) == 11 or got[-1] in lm.stop_ids


def test_embed_prompts_gives_the_logits_of_placeholders(lm):
    """The result of embed_prompts gives the same logits as `input_ids` with features."""
    ids, mask = prompt_ids(lm, 40), torch.ones(1, 40, dtype=torch.long)
    with torch.no_grad():
        logits = lm.hf(input_ids=torch.tensor([ids]), input_features=mel(40)[None], input_features_mask=mask).logits
        audio = lm.hf.model.get_audio_features(mel(40)[None], mask).pooler_output
        [prompt] = lm.embed_prompts([audio], ["Chinese"])
        embedded = lm.hf(inputs_embeds=prompt[None]).logits
    assert len(prompt) == len(ids)
    torch.testing.assert_close(embedded, logits, atol=1e-6, rtol=0)


def test_forward_refuses_clips_in_another_order_than_prompts(lm):
    """The total number of audio tokens in the batch is right, but the number in each row is wrong."""
    prompts, mask = [prompt_ids(lm, 40), prompt_ids(lm, 24)], torch.zeros(2, 40, dtype=torch.long)
    ids = torch.tensor([prompts[0], [lm.tokenizer.pad_token_id] * 2 + prompts[1]])
    mask[0, :24], mask[1] = 1, 1
    inputs = {"input_ids": ids, "input_features": torch.zeros(2, 16, 40)}
    with pytest.raises(UserError, match=r"\[5, 3\] audio tokens per row, but the clips have \[3, 5\]"):
        lm.hf(**inputs, input_features_mask=mask)
    with pytest.raises(UserError, match="without input_features_mask"):
        lm.hf(**inputs)
    assert lm.hf(**inputs, input_features_mask=mask.flip(0)).logits.shape[:2] == ids.shape


def test_save_pretrained_restores_the_model_bit_for_bit(lm, tmp_path):
    lm.hf.save_pretrained(tmp_path)
    configs = [
        config.to_dict() | {"_name_or_path": ""} for config in (AutoConfig.from_pretrained(tmp_path), lm.hf.config)
    ]
    assert configs[0] == configs[1]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is ArkasrForConditionalGeneration and not loaded.training
    before, after = lm.hf.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert loaded.lm_head.weight.data_ptr() == loaded.get_input_embeddings().weight.data_ptr()
    ids, mask = torch.tensor([prompt_ids(lm, 40)]), torch.ones(1, 40, dtype=torch.long)
    with torch.no_grad():
        a, b = (
            hf(input_ids=ids, input_features=mel(40)[None], input_features_mask=mask).logits for hf in (lm.hf, loaded)
        )
    assert torch.equal(a, b)


def test_configuration_round_trip_keeps_all_values():
    config = ArkasrConfig(audio_config=ARK_SIZES["audio"], text_config=ARK_SIZES["text"], merge_factor=2)
    again = ArkasrConfig.from_dict(config.to_dict())
    assert again.to_dict() == config.to_dict() and again.merge_factor == 2
    assert again.audio_config.hidden_size == 32 and again.text_config.rope_parameters["rope_theta"] == 1e6
    assert again.text_config.model_type == "qwen2"


def test_get_audio_features_uses_the_merge_factor():
    torch.manual_seed(0)
    text = ARK_SIZES["text"] | {"vocab_size": 40, "pad_token_id": 0}
    hf = ArkasrForConditionalGeneration(
        ArkasrConfig(
            audio_config=ARK_SIZES["audio"], text_config=text, merge_factor=2, audio_token_id=3, pad_token_id=0
        )
    )
    rows = hf.model.get_audio_features(mel(15)[None], torch.ones(1, 15, dtype=torch.long)).pooler_output
    assert rows.shape == (4, 24)


def test_encoder_clamps_float16_as_published(lm):
    """The published code limits the output of each layer to 1000 below the largest float16 number."""
    hf = student(3).hf
    with torch.no_grad():
        hf.model.audio_tower.layers[0].mlp.fc2.bias.fill_(6e4)
        hf.model.audio_tower.layers[1].mlp.fc2.bias.fill_(6e4)
        seen = []
        hook = hf.model.audio_tower.norm.register_forward_pre_hook(lambda _, states: seen.append(states[0]))
        hf.model.audio_tower(mel(9)[None])
        hf.half().model.audio_tower(mel(9)[None].half())
        hook.remove()
    float32, half = seen
    assert float32.max() > 65504 and half.dtype == torch.float16
    assert half.max().item() == torch.tensor(64504.0).half().item() and half.isfinite().all()
