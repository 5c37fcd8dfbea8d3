"""Stage 0 synthesises speakers in parallel, and the corpus does not depend on the number of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from synthetic_corpus import contents, tiny

from arkasr.corpora.download import download
from arkasr.corpora.synthetic.parallel import in_processes
from arkasr.errors import UserError


@pytest.fixture
def cpus(monkeypatch):
    """Set the number of CPU cores that this process may use."""
    return lambda count: monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)), raising=False)


def slower_first(number: int) -> tuple[int, int]:
    time.sleep(0.2 if number == 0 else 0)
    return number, os.getpid()


def refuse(number: int) -> int:
    if number == 2:
        raise UserError(f"number {number} is refused; give another")
    return number


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_have_the_order_of_the_jobs(cpus, count):
    cpus(count)
    found = list(in_processes(slower_first, ((number,) for number in range(7))))
    assert [number for number, _ in found] == list(range(7))
    pids = {pid for _, pid in found}
    assert pids == {os.getpid()} if count == 1 else os.getpid() not in pids and 1 <= len(pids) <= count
    assert list(in_processes(slower_first, [])) == []


@pytest.mark.parametrize("count", [1, 2])
def test_exception_of_a_worker_is_raised_after_the_results_before_it(cpus, count):
    cpus(count)
    results = in_processes(refuse, [(number,) for number in range(5)])
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(UserError, match="^number 2 is refused; give another$"):
        next(results)


@pytest.mark.parametrize("count", [1, 2])
def test_few_jobs_are_computed_ahead(cpus, count):
    cpus(count)
    started = []
    results = in_processes(abs, ((started.append(number) or number,) for number in range(20)))
    assert next(results) == 0 and len(started) <= count + 2
    results.close()


PROGRAM = """
import os, time
from arkasr.corpora.synthetic.parallel import in_processes
def work(number):
    os.write(1, f"{os.getpid()}\\n".encode())  # at once: the other worker writes there too
    time.sleep(60)
os.sched_getaffinity = lambda _: {0, 1}
list(in_processes(work, [(number,) for number in range(9)]))
"""


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not only waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells a process that its parent has ended")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_a_killed_parent(how):
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as parent:
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        assert all(map(is_running, workers)) and parent.pid not in workers
        parent.send_signal(how)
        parent.wait(timeout=60)
        deadline = time.monotonic() + 60
        while any(map(is_running, workers)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(is_running, workers))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["librispeech", "wenetspeech"])
def test_bytes_do_not_depend_on_the_number_of_processes(tmp_path, cpus, name):
    pytest.importorskip("espeakng_loader")
    for count in (1, 2):
        cpus(count)
        download(tiny(tmp_path, name), "mini", str(tmp_path / str(count)))
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert one == two and len(one) > 8
