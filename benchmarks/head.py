"""Compare head and loss, forward and backward: sparse head and chunked full KL against dense logits.

    python benchmarks/head.py --vocab 151936 --width 896 --top_k 32 --rows 512 2048

Each row of the table is one method at one number of scored positions P, with its ratio to the dense method. Time is
the median of paired repeats: every repeat runs all methods in turn. Memory is the peak above the memory in use before:
of torch's allocator on GPUs, of the process's resident set on CPUs (Linux). Every method ends with a gradient of the
head. The column "extra" excludes its size, "with gradient" includes it.

- dense: union_topk_kl with the logits of all V tokens formed at once, as autograd keeps them.
- sparse: union_topk_kl with the head's rows of the support only.
- dense full, chunked full: full_kl over all V tokens, with the logits of all positions at once, or of some positions
  at a time.
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
    """The inputs of one comparison.

    Attributes:
        states: Student states [P, H], float32, with gradient.
        weight: Student head [V, H], float32, with gradient.
        teacher: The teacher's next-token distributions at P positions.
        supports: The support of each loss, by the loss's name.
    """

    states: Tensor
    weight: Tensor
    teacher: DenseView
    supports: dict[str, Support]

    def clear(self) -> None:
        """Delete the gradients."""
        self.states.grad = self.weight.grad = None


def make_case(vocab: int, width: int, top_k: int, rows: int, device: str) -> Case:
    """Draw random inputs. The supports are random unions of two top-k sets, and the whole vocabulary.

    Args:
        vocab: Vocabulary size V.
        width: Hidden size H.
        top_k: Tokens of each top-k set.
        rows: Number of scored positions P.
        device: Where the tensors are.
    """
    torch.manual_seed(0)
    states = torch.randn(rows, width, device=device).requires_grad_()
    weight = (torch.randn(vocab, width, device=device) / width**0.5).requires_grad_()
    teacher = DenseView(torch.randn(rows, vocab, device=device).mul_(2))
    ids = torch.randint(vocab, (rows, 2 * top_k), device=device)
    every = torch.arange(vocab, device=device).expand(rows, -1)
    return Case(states, weight, teacher, {"union_topk_kl": support(ids), "full_kl": support(every)})


def support(ids: Tensor) -> Support:
    """Return a support for a student and a teacher with the same vocabulary.

    Args:
        ids: Tokens [P, U].
    """
    valid = torch.ones(1, 1, dtype=torch.bool, device=ids.device).expand_as(ids)
    return Support(ids, ids, valid, valid, valid, ids[:, 0], ids[:, 0])


def ways(case: Case) -> dict[str, Callable[[], tuple[Tensor, Tensor]]]:
    """Return the compared methods by name.

    Args:
        case: The inputs.

    Returns:
        Functions without arguments that return the sum of a loss over positions and their count.
    """
    blocked = torch.zeros(len(case.weight), dtype=torch.bool, device=case.weight.device)

    def head() -> HeadView:
        return HeadView(case.states, case.weight, blocked)

    def loss(name: str, view: HeadView | DenseView) -> tuple[Tensor, Tensor]:
        return create("loss", name, {})(view, case.teacher, case.supports[name])

    def dense_full() -> tuple[Tensor, Tensor]:
        every = case.supports["full_kl"]
        teacher, student, counted = outcomes(head().dense(), case.teacher, every, every.valid, tail=True)
        return kl(teacher, student).sum(), counted.sum()

    return {
        "dense": lambda: loss("union_topk_kl", head().dense()),
        "sparse": lambda: loss("union_topk_kl", head()),
        "dense full": dense_full,
        "chunked full": lambda: loss("full_kl", head()),
    }


def step(case: Case, way: str) -> None:
    """Run one method, forward and backward.

    Args:
        case: The inputs. They get new gradients.
        way: Name of the method.
    """
    case.clear()
    total, count = ways(case)[way]()
    (total / count).backward()


def measure(case: Case, names: list[str], repeats: int) -> dict[str, tuple[float, int]]:
    """Measure methods. The first run of each gives the memory, the repeats give the time.

    Args:
        case: The inputs.
        names: Names of the methods.
        repeats: Number of timed repeats.

    Returns:
        Median seconds and peak bytes by method.
    """
    device, peaks = case.weight.device.type, {}
    for way in names:
        case.clear()  # the gradients of the last method would count as memory in use before
        peaks[way] = peak_bytes(lambda way=way: step(case, way), device)
    times = [{way: seconds(lambda way=way: step(case, way), device) for way in names} for _ in range(repeats)]
    case.clear()
    return {way: (statistics.median(t[way] for t in times), peaks[way]) for way in names}


def table(case: Case, measured: dict[str, tuple[float, int]]) -> list[str]:
    """Return one Markdown row per method.

    Args:
        case: The inputs.
        measured: Result of `measure`.
    """
    gradient, lines = case.weight.nbytes, []
    for way, (median, peak) in measured.items():
        base_median, base_peak = measured[BASE[way]]
        extra, base_extra = peak - gradient, base_peak - gradient
        leaner = f"{base_extra / extra:.1f}" if extra > 2**20 else "-"  # smaller differences are noise of whole pages
        sizes = f"{extra / 2**20:.0f} | {leaner} | {peak / 2**20:.0f}"
        lines.append(f"| {len(case.states)} | {way} | {median:.3f} | {base_median / median:.1f} | {sizes} |")
    return lines


def main(argv: list[str] | None = None) -> None:
    """Measure all sizes and print the table.

    Args:
        argv: Command-line options. Default: those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", type=int, default=151936, help="vocabulary size V (default: %(default)s)")
    parser.add_argument("--width", type=int, default=896, help="hidden size of the student (default: %(default)s)")
    parser.add_argument("--top_k", type=int, default=32, help="tokens of each top-k set (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="timed repeats (default: %(default)s)")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[128, 512, 2048, 4096], help="numbers of scored positions P"
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=list(PARTS),
        default=list(PARTS),
        help="topk: union_topk_kl, full: full_kl over the vocabulary (default: both)",
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="cuda or cpu (default: cuda if there is one)",
    )
    args = parser.parse_args(argv)
    warm = make_case(64, 8, 2, 2, args.device)
    for way in BASE:  # a warm-up, so that no measurement includes the loading of code
        step(warm, way)
    names = [way for part in args.parts for way in PARTS[part]]
    threads = f"{torch.get_num_threads()} threads"
    print(f"V = {args.vocab}, width = {args.width}, k = {args.top_k}, {args.device}, {threads}\n")
    print("| positions | method | seconds | x faster than dense | extra MiB | x less than dense | with gradient MiB |")
    print("|---|---|---|---|---|---|---|")
    for rows in args.rows:
        case = make_case(args.vocab, args.width, args.top_k, rows, args.device)
        print("\n".join(table(case, measure(case, names, args.repeats))), flush=True)


if __name__ == "__main__":
    main()
