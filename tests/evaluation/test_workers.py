"""The ranks of stages 2 and 4, without other processes: threads share a store, and one process needs none."""

from __future__ import annotations

import os
import signal
import threading

import pytest
import torch.distributed as dist

from arkasr.errors import UserError
from arkasr.evaluation import monitor
from arkasr.evaluation import workers as module
from arkasr.evaluation.launch_notes import FAILED, STOPPED
from arkasr.evaluation.workers import LOST, RESTART, Workers


@pytest.fixture
def launched(monkeypatch):
    """Make this process one that torchrun has started."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr(module, "end_with_launcher", lambda: None)


class Group:
    """Ranks in threads of one process. They share a store, and each runs a function in `Workers`."""

    def __init__(self, folder, size: int, monkeypatch):
        self.folder, self.size, self.ended = folder, size, {}
        self.store = dist.TCPStore("localhost", 0, None, True, wait_for_workers=False)
        monkeypatch.setattr(module, "meet", lambda *_: self.store.clone())
        monkeypatch.setattr(module, "end_with_launcher", lambda: None)
        monkeypatch.setattr(module.signal, "signal", lambda *_: None)  # only the main thread may call it

    def run(self, function) -> dict[int, object]:
        """Return by rank what the function returned or raised."""
        threads = [threading.Thread(target=self._one, args=(rank, function)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return dict(sorted(self.ended.items()))

    def _one(self, rank: int, function) -> None:
        one = Workers(self.folder, "decode")
        one.rank, one.world_size = rank, self.size
        try:
            with one:
                self.ended[rank] = function(one)
        except BaseException as error:
            self.ended[rank] = error


@pytest.fixture
def group(tmp_path, monkeypatch):
    return Group(tmp_path, 3, monkeypatch)


def test_one_process_decides_counts_and_collects_alone(tmp_path):
    with Workers(tmp_path, "decode") as workers:
        key = workers.new_key()
        assert workers.first and workers.decide(lambda: {"a": [1]}) == {"a": [1]}
        assert [workers.add(key, 2), workers.add(key, 3), workers.add(key)] == [2, 5, 5]
        assert workers.collect("x") == ["x"] and workers.listed(workers.new_key()) == []
        with workers.locked(tmp_path / "folder", "decoding"):
            assert (tmp_path / "folder" / ".arkasr.lock").is_file()


def test_ranks_share_decisions_counters_and_lists(group):
    def body(workers):
        counter, texts = workers.new_key(), workers.new_key()
        with workers.locked(group.folder, "decoding"):
            decided = workers.decide(lambda: f"by rank {workers.rank}")
            place = workers.add(counter, 1)
            workers.append(texts, [workers.rank, "a\nb"])
            collected = workers.collect(workers.rank)
        return decided, place, collected, sorted(map(str, workers.listed(texts))) if workers.first else []

    ended = group.run(body)
    assert [one[0] for one in ended.values()] == ["by rank 0"] * 3
    assert sorted(one[1] for one in ended.values()) == [1, 2, 3]
    assert [one[2] for one in ended.values()] == [[0, 1, 2], [], []]
    assert ended[0][3] == ["0", "1", "2", "a\nb", "a\nb", "a\nb"]


@pytest.mark.parametrize("silent", [True, False])
def test_silent_rank_is_noticed_while_rank_0_collects_but_not_one_that_has_finished(group, monkeypatch, silent):
    ended, messages = threading.Event(), []
    monkeypatch.setattr(monitor, "LONGEST_INTERVAL", 0.05)
    monkeypatch.setattr(monitor, "end_process", lambda *values: (messages.append(values[1]), ended.set()))

    def run(one):
        with one.watched(0.6):
            pass
        if one.rank == 2:  # it collects late, and is alive or not
            if silent:
                one._monitor.stop()
            ended.wait(60 if silent else 0.9)
        return one.collect(one.rank)

    assert group.run(run) == {0: [0, 1, 2], 1: [], 2: []}
    assert [message.partition(" for ")[0].split(" on ")[0] for message in messages[:1]] == ["rank 2"] * silent


def test_error_of_one_rank_ends_the_others_silently(group):
    def body(workers):
        if workers.rank == 1:
            raise UserError("no server")
        while True:
            workers.check()

    ended = group.run(body)
    assert str(ended[1]) == "no server"
    assert [ended[rank].code for rank in (0, 2)] == [LOST, LOST]


def test_errors_of_all_ranks_are_raised_once(group):
    def body(workers):
        raise UserError("config key `train`: unknown")

    ended = group.run(body)
    assert sorted(type(error).__name__ for error in ended.values()) == ["SystemExit", "SystemExit", "UserError"]


def test_lock_of_another_command_is_one_error(group, tmp_path):
    """A lock of the same process would not be refused, so another one holds it."""
    pid = os.fork()
    if pid == 0:
        with Workers(tmp_path, "decode") as workers, workers.locked(tmp_path / "held", "decoding base"):
            (tmp_path / "ready").touch()
            signal.pause()
    try:
        while not (tmp_path / "ready").exists():
            os.sched_yield()
        ended = group.run(lambda workers: workers.locked(tmp_path / "held", "decoding base").__enter__())
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert isinstance(ended[0], UserError) and "is using this folder; wait until it ends" in str(ended[0])
    assert [ended[rank].code for rank in (1, 2)] == [LOST, LOST]


def test_signal_ends_a_single_process_with_its_status_and_a_note(tmp_path, capsys):
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(SystemExit) as caught, Workers(tmp_path, "label") as workers:
        workers.check()
        os.kill(os.getpid(), signal.SIGUSR1)
        workers.check()
    assert caught.value.code == 128 + signal.SIGUSR1 and signal.getsignal(signal.SIGUSR1) == before
    assert "label: stopped by a signal; finished clips are kept, run the same command again" in capsys.readouterr().out
    assert (tmp_path / STOPPED).is_file()
    with Workers(tmp_path, "label"):
        assert not (tmp_path / STOPPED).exists()


def test_signal_at_one_rank_ends_all_with_status_0_under_torchrun(group, launched):
    def body(workers):
        workers._signalled = workers.rank == 2
        while True:
            workers.check()

    assert [error.code for error in group.run(body).values()] == [0, 0, 0]
    assert (group.folder / STOPPED).is_file()


def test_user_error_is_not_repeated_by_a_restart_of_the_same_launch(tmp_path, launched, monkeypatch):
    with pytest.raises(UserError), Workers(tmp_path, "decode"):
        raise UserError("no such run")
    assert (tmp_path / FAILED).is_file()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(SystemExit) as caught, Workers(tmp_path, "decode"):
        raise AssertionError("the body must not run")
    assert caught.value.code == LOST
    (tmp_path / FAILED).write_text("another host 1 2")  # an earlier launch
    with Workers(tmp_path, "decode"):
        assert not (tmp_path / FAILED).exists()


def test_other_error_is_repeated(tmp_path, launched, monkeypatch):
    with pytest.raises(RuntimeError, match="CUDA"), Workers(tmp_path, "decode"):
        raise RuntimeError("CUDA error")
    assert not (tmp_path / FAILED).exists()


def test_restarted_rank_of_another_machine_ends_the_ranks_of_the_old_start(group, monkeypatch):
    """The store of the second start has the number of restarts of the new rank."""
    second, stores = dist.TCPStore("localhost", 0, None, True, wait_for_workers=False), []
    second.set("restarts", "1")

    def meet(*_):
        stores.append(group.store if not stores else second)
        return stores[-1].clone()

    joined = threading.Barrier(group.size)  # all ranks of the first start have met

    def body(workers):
        joined.wait(60)
        if workers.rank:
            while True:
                workers.check()
        monkeypatch.setattr(module, "meet", meet)
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
        late = Workers(group.folder, "decode")
        late.rank, late.world_size = 1, 3
        late._join()
        while True:
            workers.check()

    ended = group.run(body)
    assert [error.code for error in ended.values()] == [RESTART] * 3 and len(stores) == 2


def test_lost_store_ends_the_rank(tmp_path, monkeypatch, capsys):
    server = dist.TCPStore("localhost", 0, None, True, wait_for_workers=False)
    client = dist.TCPStore("localhost", server.port, None, False)
    client.set("restarts", "0")
    monkeypatch.setattr(module, "meet", lambda *_: client)
    workers = Workers(tmp_path, "decode")
    workers.rank, workers.world_size = 1, 2
    workers._store = workers._join()
    del server
    with pytest.raises(SystemExit) as caught:
        workers.add("counter", 1)
    assert caught.value.code == LOST and "rank 1 ends, because rank 0 has ended" in capsys.readouterr().out
