"""Times head and loss, forwards and backwards: the sparse head against dense logits, and chunked against dense.

    python benchmarks/head.py --vocab 151936 --width 896 --top_k 32 --rows 512 2048

Each row of the table is one way at one number of scored positions, its ratio to the dense way beside it. Time is the
median of paired repeats (every repeat runs all ways, in turn). Memory is by how much the peak exceeds the state before:
of the allocator on a GPU, of the process's resident set on a CPU (Linux). Every way ends with a gradient of the head;
"extra" leaves its size out, "with gradient" does not.

- dense: union_topk_kl with the logits of all V tokens formed at once, as autograd keeps them.
- sparse: union_topk_kl with the head's rows of the support only.
- dense full, chunked full: full_kl over all V tokens, from logits formed at once, and some positions at a time.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from measured import peak_bytes, seconds
from torch import Tensor

from arkasr import DenseView, HeadView, Support
from arkasr.builtin.divergences import kl, outcomes
from arkasr.testing import create

PARTS = {"topk": ("dense", "sparse"), "full": ("dense full", "chunked full")}
BASE = {way: ways[0] for ways in PARTS.values() for way in ways}


@dataclass
class Case:
    """states [P, H] and weight [V, H] with gradient; the teacher's view; the support that the loss compares."""

    states: Tensor
    weight: Tensor
    teacher: DenseView
    supports: dict[str, Support]

    def clear(self) -> None:
        """Drop the gradients."""
        self.states.grad = self.weight.grad = None


def make_case(vocab: int, width: int, top_k: int, rows: int, device: str) -> Case:
    """Draw a case of `rows` positions: random unions of two top-k sets, and the whole vocabulary."""
    torch.manual_seed(0)
    states = torch.randn(rows, width, device=device).requires_grad_()
    weight = (torch.randn(vocab, width, device=device) / width**0.5).requires_grad_()
    teacher = DenseView(torch.randn(rows, vocab, device=device).mul_(2))
    ids = torch.randint(vocab, (rows, 2 * top_k), device=device)
    every = torch.arange(vocab, device=device).expand(rows, -1)
    return Case(states, weight, teacher, {"union_topk_kl": support(ids), "full_kl": support(every)})


def support(ids: Tensor) -> Support:
    """Return a support of these tokens [P, U], under the same ids on both sides."""
    valid = torch.ones(1, 1, dtype=torch.bool, device=ids.device).expand_as(ids)
    return Support(ids, ids, valid, valid, valid, ids[:, 0], ids[:, 0])


def ways(case: Case) -> dict[str, Callable[[], tuple[Tensor, Tensor]]]:
    """Return what is compared, by name: each computes a loss's sum and count."""
    blocked = torch.zeros(len(case.weight), dtype=torch.bool, device=case.weight.device)

    def head() -> HeadView:
        return HeadView(case.states, case.weight, blocked)

    def loss(name: str, view: HeadView | DenseView) -> tuple[Tensor, Tensor]:
        return create("loss", name, {})(view, case.teacher, case.supports[name])

    def dense_full() -> tuple[Tensor, Tensor]:
        every = case.supports["full_kl"]
        theirs, ours, counted = outcomes(head().dense(), case.teacher, every, every.valid, tail=True)
        return kl(theirs, ours).sum(), counted.sum()

    return {
        "dense": lambda: loss("union_topk_kl", head().dense()),
        "sparse": lambda: loss("union_topk_kl", head()),
        "dense full": dense_full,
        "chunked full": lambda: loss("full_kl", head()),
    }


def step(case: Case, way: str) -> None:
    """Run one way forwards and backwards."""
    case.clear()
    total, count = ways(case)[way]()
    (total / count).backward()


def measure(case: Case, names: list[str], repeats: int) -> dict[str, tuple[float, int]]:
    """Return seconds and peak bytes of the ways named; the first run of each gives the memory."""
    device, peaks = case.weight.device.type, {}
    for way in names:
        case.clear()  # so that what the last way left is not counted as there before
        peaks[way] = peak_bytes(lambda way=way: step(case, way), device)
    times = [{way: seconds(lambda way=way: step(case, way), device) for way in names} for _ in range(repeats)]
    case.clear()
    return {way: (statistics.median(t[way] for t in times), peaks[way]) for way in names}


def table(case: Case, measured: dict[str, tuple[float, int]]) -> list[str]:
    """Return a Markdown row for each way."""
    gradient, lines = case.weight.nbytes, []
    for way, (median, peak) in measured.items():
        base_median, base_peak = measured[BASE[way]]
        extra, base_extra = peak - gradient, base_peak - gradient
        leaner = f"{base_extra / extra:.1f}" if extra > 2**20 else "-"  # below a MiB it is the page size's noise
        sizes = f"{extra / 2**20:.0f} | {leaner} | {peak / 2**20:.0f}"
        lines.append(f"| {len(case.states)} | {way} | {median:.3f} | {base_median / median:.1f} | {sizes} |")
    return lines


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"vocab": 151936, "width": 896, "top_k": 32, "repeats": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rows", type=int, nargs="+", default=[128, 512, 2048, 4096], help="scored positions")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="top-k loss, whole KL")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    warm = make_case(64, 8, 2, 2, args.device)
    for way in BASE:  # so that no measurement pays for loading code
        step(warm, way)
    names = [way for part in args.parts for way in PARTS[part]]
    threads = f"{torch.get_num_threads()} threads"
    print(f"V = {args.vocab}, width = {args.width}, k = {args.top_k}, {args.device}, {threads}\n")
    print("| rows | way | seconds | x faster than dense | extra MiB | x less than dense | with gradient MiB |")
    print("|---|---|---|---|---|---|---|")
    for rows in args.rows:
        case = make_case(args.vocab, args.width, args.top_k, rows, args.device)
        print("\n".join(table(case, measure(case, names, args.repeats))), flush=True)


if __name__ == "__main__":
    main()
