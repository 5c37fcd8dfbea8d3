"""Products of bfloat16 numbers, as a GPU computes them, compared with exact ones.

A CPU has no product of bfloat16 numbers with a float32 result. Here the same numbers are multiplied in float32, where
each product is exact too.
"""

from __future__ import annotations

import pytest
import torch
from fake_gpu import DEVICE, fake_gpu

from arkasr.distributions import chunked_head, products
from arkasr.distributions.chunked_head import block_rows, full_scores, in_parts, pair_scores, sum_in_parts

ALLOWED = 2.0**-14  # relative to the largest entry; a single bfloat16 factor would differ by 2^-9


@pytest.fixture
def tensor_cores(monkeypatch):
    """Take the path of a GPU for bfloat16 factors, and count its multiplications."""
    calls = []

    def multiply(a, b):
        assert a.dtype == b.dtype == torch.bfloat16
        calls.append(a.shape)
        return a.float() @ b.float()

    monkeypatch.setattr(products, "uses_tensor_cores", lambda factor: factor.dtype == torch.bfloat16)
    monkeypatch.setattr(products, "_multiply", multiply)
    return calls


def inputs(dtype=torch.bfloat16, positions=7, vocab=50, hidden=33):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(positions, hidden, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(vocab, hidden, generator=generator).to(dtype).requires_grad_()
    ids = torch.randint(0, vocab, (positions, 6), generator=generator)
    return states, weight, ids, torch.randn(positions, 6, generator=generator)


def relative(found, exact):
    return float((found.double() - exact).abs().max() / exact.abs().max())


def test_product_of_bfloat16_numbers_equals_that_of_a_cpu(tensor_cores):
    states, weight, ids, _ = inputs()
    with torch.no_grad():
        assert torch.equal(full_scores(states, weight), states.float() @ weight.float().T)
        exact = (weight[ids].double() @ states.double()[:, :, None]).squeeze(-1)
        assert relative(pair_scores(states, weight, ids), exact) < 1e-6
    assert len(tensor_cores) == 2


@pytest.mark.parametrize("name", ["full", "pairs", "parts", "sum"])
def test_gradients_are_those_of_exact_products(tensor_cores, monkeypatch, name):
    monkeypatch.setattr(chunked_head, "ROWS", 3)
    states, weight, ids, slopes = inputs()
    wide = [t.detach().double().requires_grad_() for t in (states, weight)]
    (wide[0] @ wide[1].T).log_softmax(-1).gather(1, ids).mul(slopes.double()).sum().backward()

    def loss(scores, ids, slopes):
        return scores.log_softmax(-1).gather(1, ids) * slopes

    if name == "full":
        total = loss(full_scores(states, weight), ids, slopes).sum()
    elif name == "pairs":
        every = torch.arange(len(weight)).expand(len(states), -1)
        total = loss(pair_scores(states, weight, every), ids, slopes).sum()
    elif name == "parts":
        total = in_parts(lambda *of: (loss(*of),), states, weight, ids, slopes)[0].sum()
    else:
        total, _ = sum_in_parts(lambda *of: (loss(*of).sum(), torch.tensor(1)), states, weight, ids, slopes)
    total.backward()
    assert tensor_cores and states.grad.dtype == weight.grad.dtype == torch.bfloat16
    for found, exact in zip((states.grad, weight.grad), wide):
        rounding = (exact.grad.to(torch.bfloat16).double() - exact.grad).abs().max() / exact.grad.abs().max()
        assert relative(found, exact.grad) < 2 * float(rounding)  # no worse than the rounding of the result


def test_float32_factor_is_multiplied_in_two_parts(tensor_cores):
    grad, (_, weight, *_) = torch.randn(9, 50, generator=torch.Generator().manual_seed(1)), inputs()
    exact = grad.double() @ weight.detach().double()
    assert relative(products.product(grad, weight.detach()), exact) < ALLOWED
    one_part = grad.to(torch.bfloat16).float() @ weight.detach().float()
    assert relative(one_part, exact) > 4 * ALLOWED  # so the tolerance tells them apart
    total = torch.ones(9, 33)
    products.add_product(total, grad, weight.detach())
    assert relative(total, exact + 1) < ALLOWED and len(tensor_cores) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cpu_multiplies_in_float32(dtype):
    states, weight, ids, _ = inputs(dtype)
    exact = states.detach().double() @ weight.detach().double().T
    assert not products.uses_tensor_cores(weight)
    assert relative(full_scores(states, weight).detach(), exact) < 1e-6
    assert relative(pair_scores(states, weight, ids).detach(), exact.gather(1, ids)) < 1e-6


def test_blocks_are_larger_on_a_gpu():
    assert block_rows(151936, "cpu") == chunked_head.ROWS == block_rows(10**9, "cuda")
    assert 4 * 151936 * block_rows(151936, "cuda") <= 2**30 < 4 * 151936 * (block_rows(151936, "cuda") + 1)


FACTORS = [torch.bfloat16, torch.float32, torch.float16]


@pytest.mark.parametrize("positions", [300, 1, 0])
@pytest.mark.parametrize("of_weight", FACTORS)
@pytest.mark.parametrize("of_states", FACTORS)
def test_torch_accepts_the_factors_of_a_gpu(of_states, of_weight, positions):
    """On a GPU without values, torch still checks dtypes, shapes and the arguments of its products."""
    with fake_gpu():
        states = torch.randn(positions, 64, device=DEVICE, dtype=of_states)
        weight = torch.randn(1000, 64, device=DEVICE, dtype=of_weight)
        ids = torch.zeros(positions, 7, dtype=torch.long, device=DEVICE)
        ctx = Context()
        logits = products._Scores.forward(ctx, states, weight)
        grads = [products._Scores.backward(ctx, logits), chunked_head._Gradients((True, True), states, weight)]
        for rows, part in chunked_head._blocks(states, grads[1].wide):
            grads[1].add(rows, part)
        pairs = chunked_head._PairScores.forward(ctx, states, weight, ids)
        found = [grads[0], grads[1].in_own_dtypes(), chunked_head._PairScores.backward(ctx, pairs)[:2]]
    assert (logits.shape, pairs.shape) == ((positions, 1000), (positions, 7))
    assert {logits.dtype, pairs.dtype} == {torch.float32}
    for of_first, of_second in found:
        assert (of_first.shape, of_first.dtype) == (states.shape, of_states)
        assert (of_second.shape, of_second.dtype) == (weight.shape, of_weight)


class Context:
    """What autograd gives to a Function."""

    needs_input_grad = (True, True)

    def save_for_backward(self, *tensors):
        self.saved_tensors = tensors
