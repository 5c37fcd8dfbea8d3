"""Several processes that transcribe: the same batches and rows as one, errors in one sentence, no process left over."""

from __future__ import annotations

import os
import signal
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from corpus_fixture import make_cut
from pid_transcriber import make_transcriber
from processes import children, has_ended

from arkasr.config.schema import DataConfig
from arkasr.data.reasons import MISSING
from arkasr.errors import UserError
from arkasr.evaluation.processes import Processes
from arkasr.evaluation.transcribing import Transcribing, deal
from arkasr.evaluation.worker import Worker

pytestmark = [pytest.mark.slow, pytest.mark.distributed]


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    """Return seven batches of one to three clips. One clip of the last batch has no audio."""
    folder = tmp_path_factory.mktemp("clips")
    cuts = [make_cut(folder, f"clip-{i}", 0.9 - 0.05 * i, "one two") for i in range(12)]
    os.remove(cuts[11].recording.sources[0].source)
    sizes = [1, 1, 1, 2, 2, 2, 3]
    return [[cuts[sum(sizes[:i]) + j] for j in range(size)] for i, size in enumerate(sizes)]


@pytest.fixture(scope="module")
def pair():
    """Return two processes with loader processes of their own. They cannot transcribe clip-3."""
    make = partial(make_transcriber, raises={"clip-3": ValueError("wrong shape")})
    with Processes(make, 2, DataConfig(num_workers=2), 60.0) as processes:
        yield processes


def by_batch(results):
    """Return rows without their process, and the clips that failed, in a fixed order."""
    rows = [[{k: v for k, v in row.items() if k not in ("pid", "made")} for row in one.rows] for one in results]
    failed = [[failure[:3] for failure in (*one.unread, *one.failures)] for one in results]
    return sorted(zip(rows, failed, strict=True), key=str)


def pids(results):
    return {row["pid"] for result in results for row in result.rows}


def test_processes_give_the_batches_of_one_process(pair, batches):
    with Processes(pair._parts[0].make, 1, DataConfig(), 60.0) as single:
        one, two = list(single.transcribe(batches, "a")), list(pair.transcribe(batches, "a"))
    assert by_batch(one) == by_batch(two) and len(one) == len(batches)
    assert [[row["id"] for row in result.rows] for result in one[:3]] == [[c.id for c in b] for b in batches[:3]]
    assert pids(one) == {os.getpid()}
    assert len(pids(two)) == 2 and os.getpid() not in pids(two)


def test_clips_that_cannot_be_read_or_transcribed_are_failures(pair, batches):
    results = list(pair.transcribe(batches, "a"))
    (unread,) = [one for result in results for one in result.unread]
    (failure,) = [one for result in results for one in result.failures]
    assert (unread.id, unread.kind) == ("clip-11", MISSING)
    assert (failure.id, failure.detail) == ("clip-3", "ValueError: wrong shape")
    assert sum(result.num_clips for result in results) == 12


def test_models_are_made_once_per_process_and_dtype(pair, batches):
    found = [row for dtype in ("a", "b", "a") for one in pair.transcribe(batches, dtype) for row in one.rows]
    made = {(row["pid"], row["hypothesis"].split()[0], row["made"]) for row in found}
    assert len(made) == 4 and {pid for pid, *_ in made} <= set(children(os.getpid()))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "memory ran out for a batch of 2 clips, 1 s of audio; lower decode.max_seconds"),
        (ConnectionRefusedError(111, "no server"), "no server"),
    ],
)
def test_error_of_a_process_ends_the_command_with_its_sentence(batches, error, message):
    make = partial(make_transcriber, raises={"clip-4": error})
    with pytest.raises(UserError, match=message) as caught, Processes(make, 2, DataConfig(), 60.0) as processes:
        list(processes.transcribe(batches[3:4], "a"))
    assert "Traceback" in caught.value.__notes__[0]


def test_error_in_arkasr_is_no_error_of_the_user(batches):
    make = partial(make_transcriber, broken=True)
    message = "process 1 of 2 on cpu failed"
    with pytest.raises(RuntimeError, match=message) as caught, Processes(make, 2, DataConfig(), 60.0) as processes:
        list(processes.transcribe(batches[:1], "a"))
    assert not isinstance(caught.value, UserError) and "KeyError: 'broken'" in caught.value.__notes__[0]


def test_error_before_the_first_share_is_read_is_not_lost(batches):
    """A share that does not fit into the pipe is still being sent when the process ends."""
    part = Transcribing(make_transcriber, DataConfig(), 60.0, "no such device")
    worker = Worker(part, 0, 2)
    with pytest.raises(RuntimeError, match="process 1 of 2 on no such device failed") as caught:
        worker.send(batches * 200, "a")
        worker.receive()
    worker.join()
    assert "set_device" in caught.value.__notes__[0] and has_ended(worker.process.pid)


def test_killed_process_is_named_and_the_others_end(batches):
    message = r"process . of 2 on cpu was ended by SIGKILL; if memory ran out, lower decode.max_seconds"
    with pytest.raises(UserError, match=message), Processes(make_transcriber, 2, DataConfig(), 60.0) as processes:
        found = pids(processes.transcribe(batches, "a"))
        os.kill(min(found), signal.SIGKILL)
        list(processes.transcribe(batches, "a"))
    assert len(found) == 2 and all(map(has_ended, found))


@pytest.mark.parametrize("count", [3, 1])
def test_each_process_has_its_own_gpu(monkeypatch, count):
    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 2)
    monkeypatch.setattr(torch, "cuda", cuda)
    if count == 3:
        with pytest.raises(UserError, match="--ngpu 3: this machine has 2 GPUs that are visible; use at most 2"):
            Processes(make_transcriber, count, DataConfig(), 60.0)
    assert [part.device for part in Processes(make_transcriber, 2, DataConfig(), 60.0)._parts] == ["cuda:0", "cuda:1"]


def test_deal_keeps_batches_whole_and_balances_padded_audio(batches):
    lengths = [30, 29, 20, 11, 10, 9, 2]
    items = [[SimpleNamespace(duration=float(length))] * 2 for length in lengths]
    shares = deal(items, 3)
    assert sorted(id(batch) for share in shares for batch in share) == sorted(map(id, items))
    sums = [sum(2 * batch[0].duration for batch in share) for share in shares]
    assert max(sums) - min(sums) <= 2 * 9 and sum(sums) == 2 * sum(lengths)
    assert deal(items[:1], 3) == [[items[0]], [], []]
