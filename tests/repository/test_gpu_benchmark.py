"""The benchmark of GPUs runs at a small size on a CPU, and its exit code says whether paths agree."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import waveform

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import gpu
import gpu_bench
import gpu_rollout
import gpu_step
import gpu_table
import op_counts
from gpu_check import TIES, same_losses, same_transcripts, worst_gap
from gpu_table import Row
from gpu_trace import Trace, covered, summarise

from arkasr import generate
from arkasr.testing.tiny import tiny_student

BENCHMARKS = Path(gpu.__file__).parent
MINI = ["--device", "cpu", "--size", "mini", "--repeats", "1"]


def event(category: str, name: str, start: float = 0.0, length: float = 0.0) -> dict:
    return {"ph": "X", "cat": category, "name": name, "ts": start, "dur": length}


def test_covered_is_the_length_of_the_union():
    assert covered([]) == 0.0
    assert covered([(5, 7), (0, 2), (1, 3), (6, 6.5), (10, 11)]) == 6.0


def test_summarise_counts_device_time_launches_and_waits():
    events = [
        event("kernel", "gemm", 0, 4),
        event("kernel", "on a second stream", 2, 4),
        event("gpu_memcpy", "Memcpy DtoH (Device -> Pageable)", 10, 1),
        event("gpu_memcpy", "Memcpy HtoD (Pageable -> Device)", 20, 1),
        event("gpu_memset", "Memset (Device)", 30, 2),
        event("cpu_op", "aten::mm", 0, 100),
        event("overhead", "Buffer Flush", 0, 100),
        *(event("cuda_runtime", name) for name in ("cudaLaunchKernel", "cudaLaunchKernelExC", "cudaGraphLaunch")),
        *(event("cuda_runtime", name) for name in ("cudaStreamSynchronize", "cudaDeviceSynchronize")),
        *(event("cuda_runtime", name) for name in ("cudaMemcpyAsync", "cudaStreamWaitEvent", "cudaEventQuery")),
        event("cuda_driver", "cuLaunchKernel"),
        {"ph": "M", "name": "process_name"},
    ]
    assert summarise(events) == Trace(busy=10e-6, launches=4, graphs=1, syncs=2, copies=1)


def test_trace_without_the_profilers_own_calls_keeps_the_busy_time():
    assert Trace(2.0, 9, 1, 4, 2).less(Trace(0.5, 1, 0, 3, 0)) == Trace(2.0, 8, 1, 1, 2)


def test_row_shows_measurements_and_dashes():
    row = Row("step", "arkasr", 0.61234, "s", 3.0, memory=2**30)
    row.add(Trace(0.3, 40000, 1, 139, 2), 0.6, graphs=True)
    assert row.cells()[2:] == ["0.6123", "s", "3.00", "-", "1.00", "50%", "40,000", "139", "-"]
    assert Row("a", "b").cells() == ["a", "b", *["-"] * 9]
    lines = gpu_table.table([row]).splitlines()
    assert len(lines) == 3 and len({line.count("|") for line in lines}) == 1


def test_row_fails_without_the_cuda_graphs_that_it_measures():
    row = Row("rollout", "CUDA graph", result="equal")
    row.add(Trace(0.3, 40000, 0, 139, 2), 0.6)
    assert not row.faulty
    row.add(Trace(0.3, 40000, 0, 139, 2), 0.6, graphs=True)
    assert row.faulty and "no CUDA graph" in row.result


@pytest.mark.parametrize(
    ("results", "code"),
    [
        (["", "equal", "equal up to ties: 3 of 4"], 0),
        (["DIFFERS: 1", gpu_table.NOT_RUN], 1),
        (["FAILED: ValueError: x"], 1),
        (["equal", gpu_table.NOT_RUN], 3),
    ],
)
def test_exit_code(results, code):
    assert gpu_table.exit_code([Row("a", "b", result=result) for result in results]) == code


@pytest.mark.parametrize(
    ("second", "verdict"), [(2.0, "equal"), (2.001, "equal"), (2.01, "DIFFERS"), (math.nan, "DIFFERS")]
)
def test_same_losses_allows_the_rounding_of_the_dtype(second, verdict):
    assert same_losses(2.0, second, "bfloat16").startswith(verdict)
    assert same_losses(2.0, second, "float32").startswith("equal" if second == 2.0 else "DIFFERS")


@pytest.fixture(scope="module")
def decoded():
    lm = tiny_student()
    with torch.no_grad():
        prompts = lm.embed_prompts(lm.encode_audio([waveform(9000, 1), waveform(16000, 2)]), ["English", "Chinese"])
    caps = [9, 7]
    return lm, prompts, caps, generate(lm, prompts, caps, top_k=4)


def test_worst_gap_of_generated_transcripts_is_rounding(decoded):
    assert worst_gap(*decoded) < TIES["float32"]


def test_worst_gap_finds_a_wrong_token_and_a_wrong_top_k(decoded):
    lm, prompts, caps, found = decoded
    usable = [i for i in range(len(lm.blocked)) if not lm.blocked[i] and i not in lm.stop_ids]
    other = next(i for i in usable if i not in found.topk[2])
    ids = [[*found.ids[0][:2], other, *found.ids[0][3:]], found.ids[1]]
    wrong = replace(found, ids=ids)
    gap = worst_gap(lm, prompts, caps, wrong)
    assert gap > TIES["bfloat16"]
    assert same_transcripts(found, wrong, gap, "bfloat16").startswith("DIFFERS: 1 of 2")
    topk = found.topk.clone()
    topk[3, 3] = next(i for i in usable if i not in topk[3])
    assert worst_gap(lm, prompts, caps, replace(found, topk=topk)) > TIES["float32"]


def test_worst_gap_is_infinite_for_short_transcripts_and_repeated_candidates(decoded):
    lm, prompts, caps, found = decoded
    assert not any(found.stopped), "the case needs transcripts that end at their caps"
    short = replace(found, ids=[found.ids[0][:-1], found.ids[1]], topk=found.topk[1:])
    assert worst_gap(lm, prompts, caps, short) == math.inf
    topk = found.topk.clone()
    topk[0, 1] = topk[0, 0]
    assert worst_gap(lm, prompts, caps, replace(found, topk=topk)) == math.inf


def test_transcripts_that_differ_at_a_tie_are_equal_up_to_ties(decoded):
    found = decoded[3]
    other = replace(found, ids=[[*found.ids[0][:-1], 1], found.ids[1]])
    assert same_transcripts(found, other, 0.0005, "float32").startswith("equal up to ties: 1 of 2")
    assert same_transcripts(found, other, math.nan, "float32").startswith("DIFFERS")
    assert same_transcripts(found, replace(found, ids=found.ids[:1]), 0.0, "float32").startswith("DIFFERS")


def test_without_a_gpu_the_exit_code_is_2(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for words in ([], ["--device", "cpu"]):
        with pytest.raises(SystemExit) as stop:
            gpu.main(words)
        assert stop.value.code == 2 and "--device cpu" in capsys.readouterr().err


def test_a_failed_section_does_not_end_the_others(monkeypatch, capsys):
    def fails(bench):
        yield Row("first", "before the error", 1.0)
        raise ValueError("two\nlines")

    monkeypatch.setitem(gpu.SECTIONS, "first", (fails, 1))
    monkeypatch.setitem(gpu.SECTIONS, "second", (lambda bench: iter([Row("second", "row")]), 1))
    assert gpu.main([*MINI, "--sections", "first", "second"]) == 1
    printed = capsys.readouterr().out
    assert "| first | before the error | 1 |" in printed
    assert "| FAILED: ValueError: two lines |" in printed and "| second | row |" in printed


@pytest.mark.slow
def test_sections_stop_when_the_time_is_used_up(monkeypatch):
    def waits(bench):
        yield Row("first", "before the wait")
        try:
            time.sleep(60)
        except Exception:  # as a fallback of the package would
            yield Row("first", "after the wait")

    monkeypatch.setitem(gpu.SECTIONS, "first", (waits, 1))
    monkeypatch.setitem(gpu.SECTIONS, "second", (waits, 1))
    bench = gpu.Bench("mini", "cpu", 1, Path(), gpu.Card("CPU"), gpu.NUMBERS["mini"])
    rows = gpu.run(bench, ["first", "second"], 2.0, time.perf_counter())
    found = [(row.section, row.name, row.result) for row in rows]
    assert found == [
        ("first", "before the wait", ""),
        *((name, "-", gpu_table.NOT_RUN) for name in ("first", "second")),
    ]


def test_profiles_are_taken_after_all_times_and_fill_in_earlier_rows(monkeypatch):
    order, row = [], Row("step", "arkasr", result="equal")
    bench = gpu.Bench("mini", "cuda", 1, Path(), gpu.Card("card"), gpu.NUMBERS["mini"])
    monkeypatch.setattr(gpu_bench, "trace", lambda work: (work(), Trace(0.1, 7, 0, 3, 1))[1])
    bench.profile_later(lambda: order.append("profiled"), row, 0.2, graphs=True)
    assert order == [] and row.busy is None
    assert [found.value for found in gpu.profiles(bench)] == [1]
    assert order == ["profiled"] and (row.busy, row.launches, row.syncs) == (0.5, 7, 3)
    assert row.result == "FAILED: no CUDA graph was launched; equal"


@pytest.mark.slow
def test_other_transcripts_of_a_path_give_exit_code_1(monkeypatch, capsys):
    def wrong(lm, *inputs):
        found = generate(lm, *inputs)
        usable = [i for i in range(len(lm.blocked)) if not lm.blocked[i] and i not in lm.stop_ids]
        found.ids[0][3] = next(i for i in usable if i not in found.topk[3])
        return found

    monkeypatch.setitem(gpu_rollout.PATHS, gpu_rollout.GRAPH, wrong)
    assert gpu.main([*MINI, "--sections", "models", "rollout"]) == 1
    faulty = [line for line in capsys.readouterr().out.splitlines() if "DIFFERS" in line]
    assert len(faulty) == 2 and all("| rollout | eager step, batch" in line for line in faulty), "eager on a CPU"


@pytest.mark.slow
def test_another_loss_of_a_path_gives_exit_code_1(monkeypatch, capsys):
    right = gpu_step.reference_loss
    monkeypatch.setattr(gpu_step, "reference_loss", lambda *inputs: 1.01 * right(*inputs))
    assert gpu.main([*MINI, "--sections", "models", "step"]) == 1
    assert "loss of the same transcripts" in next(
        line for line in capsys.readouterr().out.splitlines() if "DIFFERS" in line
    )


def test_same_gradients_finds_another_loss_and_another_gradient(monkeypatch):
    case = gpu_step.head.make_case(vocab=300, width=8, top_k=4, rows=5, device="cpu")
    assert gpu_step.same_gradients(case, "dense", "sparse").startswith("equal")
    ways = gpu_step.head.ways

    def changed(scale, shift):
        def other(case):
            total, count = ways(case)["sparse"]()
            return total * scale + (case.states.sum() - case.states.sum().detach()) * shift, count

        return lambda case: ways(case) | {"sparse": lambda: other(case)}

    for scale, shift in ((1.01, 0.0), (1.0, 1.0)):
        monkeypatch.setattr(gpu_step.head, "ways", changed(scale, shift))
        assert gpu_step.same_gradients(case, "dense", "sparse").startswith("DIFFERS")


@pytest.mark.slow
def test_gpu_sh_runs_all_sections_on_a_cpu(tmp_path):
    results = tmp_path / "results.json"
    words = [str(BENCHMARKS / "gpu.sh"), *MINI, "--threads", "1", "--json", str(results)]
    ended = subprocess.run(
        words, capture_output=True, text=True, env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "DIFFERS" not in ended.stdout
    table = [line for line in ended.stdout.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1, "other output between the rows"
    rows = json.loads(results.read_text())["rows"]
    assert len(rows) == len(table) - 2
    assert {row["section"] for row in rows} == set(gpu.SECTIONS) - {"compile"}
    assert all(row[name] is None for row in rows for name in ("busy", "launches", "syncs", "limit"))
    assert sum(row["result"].startswith("equal") for row in rows) >= 10


@pytest.mark.slow
def test_op_counts_of_phases_add_up_to_those_of_the_step(tmp_path, capsys):
    path = tmp_path / "counts.json"
    words = ["--size", "mini", "--vocab", "600", "--clips", "3", "--seconds", "1", "--cap", "9", "--top_k", "4"]
    op_counts.main([*words, "--json", str(path)])
    counts = json.loads(path.read_text())
    for name in ("ops", "launches", "reads"):
        assert sum(counts[phase][name] for phase in op_counts.STEP) == counts["step"][name]
    decoding = counts["encoder"]["ops"] + counts["prefill"]["ops"] + 8 * counts["per token"]["ops"]
    assert 0 <= counts["rollout"]["ops"] - decoding < 0.2 * decoding, "the rest embeds and selects"
    assert 0 < counts["per token"]["launches"] < counts["per token"]["ops"]
    assert re_rows(capsys.readouterr().out) == [*counts]


def re_rows(printed: str) -> list[str]:
    """Return the first column of a Markdown table."""
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    return [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]]
