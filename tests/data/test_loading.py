"""Loader processes: full shared memory and long paths do not stop them, and silent ones end in an error."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator

import pytest
import torch
from corpus_fixture import make_cut

from arkasr.config.schema import DataConfig
from arkasr.data import loading
from arkasr.data.batches import Batch
from arkasr.data.dealing import Dealt
from arkasr.data.lazy_cut import LazyCut
from arkasr.data.loading import loaded
from arkasr.data.shared_samples import SharedSamples
from arkasr.errors import UserError

PROGRAM = """
import sys
import zlib
from lhotse import CutSet
from arkasr.config.schema import DataConfig
from arkasr.data.dealing import Dealt
from arkasr.data.lazy_cut import LazyCut
from arkasr.data.loading import loaded
from arkasr.data.shared_samples import SharedSamples
from arkasr.errors import UserError

dealt = [Dealt(0, (0, 0), [LazyCut.of(cut)]) for cut in CutSet.from_file(sys.argv[1])]
try:
    for _, _, batch in loaded(dealt, DataConfig(num_workers=2), 30.0):
        print(batch.ids[0], zlib.crc32(batch.waveforms[0].numpy()))
except UserError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def cuts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [make_cut(folder, f"clip-{i}", 20.0, "one two") for i in range(6)]  # 1.2 MiB of float32 per clip


@pytest.fixture(scope="module")
def manifest(cuts, tmp_path_factory) -> str:
    from lhotse import CutSet

    path = tmp_path_factory.mktemp("manifest") / "cuts.jsonl"
    CutSet.from_cuts(cuts).to_file(path)
    return str(path)


def dealt(batches) -> list[Dealt]:
    return [Dealt(0, (0, place), [LazyCut.of(cut) for cut in batch]) for place, batch in enumerate(batches)]


def load(batches, num_workers: int, timeout: float) -> Iterator[Batch]:
    """Load batches of cuts."""
    for place, (_, read, batch) in enumerate(loaded(dealt(batches), DataConfig(num_workers=num_workers), timeout)):
        assert read == (0, place)
        yield batch


def expected(cuts) -> list[str]:
    return [f"{b.ids[0]} {zlib.crc32(b.waveforms[0].numpy())}" for b in load([[cut] for cut in cuts], 0, 0.0)]


def run(*words: str, **variables: str) -> list[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_loaders_work_with_a_temporary_folder_whose_path_is_too_long_for_a_socket(cuts, manifest, tmp_path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    assert len(str(folder)) > 107
    assert run(sys.executable, "-c", PROGRAM, manifest, TMPDIR=str(folder)) == expected(cuts)


def in_small_shared_memory(fill: str, *words: str) -> list[str]:
    """Return a command that runs another one with 1 MiB of /dev/shm, in its own mount namespace."""
    mount = f'mount -t tmpfs -o size=1m tmpfs /dev/shm && {fill} && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", mount, "sh", *words]


@pytest.fixture
def namespaces():
    probe = subprocess.run(in_small_shared_memory("true", "true"), capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {probe.stderr.strip()}")


@pytest.mark.slow
def test_loaders_need_no_shared_memory_for_audio(namespaces, cuts, manifest):
    command = in_small_shared_memory("true", sys.executable, "-c", PROGRAM, manifest)
    assert run(*command) == expected(cuts)


@pytest.mark.slow
def test_full_shared_memory_is_an_error_with_the_remedy(namespaces, manifest):
    fill = "(head -c 2000000 /dev/zero > /dev/shm/full || true) 2>/dev/null"
    (message,) = run(*in_small_shared_memory(fill, sys.executable, "-c", PROGRAM, manifest))
    assert message.startswith("data.num_workers=2: loader processes cannot start (")
    assert "--shm-size" in message and message.endswith("or set data.num_workers=0")


@pytest.mark.slow
def test_exhausted_open_files_are_an_error_with_the_remedy(manifest):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))\ntry:\n    for"
    (message,) = run(sys.executable, "-c", PROGRAM.replace("try:\n    for", limit), manifest)
    assert message.startswith("data.num_workers=2: loader processes cannot start (") and "ulimit -n" in message


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.003, 0.01, 0.03])
def test_loader_killed_while_it_sends_audio_is_an_error(cuts, monkeypatch, delay):
    """The pipe then holds only part of the batch."""
    load_batch = loading.load_batch

    def load_and_die(cuts, speeds):
        batch = load_batch(cuts * 30, speeds * 30)
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return batch

    monkeypatch.setattr(loading, "load_batch", load_and_die)
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid"):
        for _ in load([cuts[:1]] * 40, 2, 30.0):
            time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("timeout", [0.0, 60.0])
def test_dead_loader_is_noticed_although_its_signal_was_lost(cuts, monkeypatch, timeout):
    """Torch raises in a signal handler. Where this interrupts a destructor, Python ignores the exception."""
    monkeypatch.setattr(loading, "CHECK_S", 0.5)
    batches = load([cuts[:1]] * 40, 2, timeout)
    next(batches)
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid"):
            list(batches)
    finally:
        signal.signal(signal.SIGCHLD, handler)


@pytest.mark.slow
def test_silent_loader_is_an_error_with_the_remedy(cuts, monkeypatch):
    monkeypatch.setattr(loading, "load_batch", lambda *clips: time.sleep(60))
    with pytest.raises(UserError, match=r"data.num_workers=1: .* no batch in 1.5 s; .*--shm-size.*train.hang_seconds"):
        next(load([cuts[:1]], 1, 1.5))


class Lost:
    """An object that cannot be sent. The queue prints the error and drops the message."""

    def __reduce__(self):
        raise MemoryError


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "number", "lost"), [(1, 1, 0), (1, 2, 1), (2, 2, 0), (2, 2, 1), (2, 5, 4), (1, 9, 0)]
)
def test_batch_lost_on_its_way_is_an_error(cuts, monkeypatch, capfd, workers, number, lost):
    load_batch = loading.load_batch

    def lose(*clips):
        batch = load_batch(*clips)
        batch.texts = [Lost()] if batch.ids == [f"clip-{lost}"] else batch.texts
        return batch

    monkeypatch.setattr(loading, "load_batch", lose)
    with pytest.raises(UserError, match=r"no batch in 1.5 s|lost on its way"):
        list(load([cuts[i : i + 1] or cuts[:1] for i in range(number)], workers, 1.5))


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_loaded_waveforms_are_tensors_that_can_be_changed(cuts, num_workers, recwarn):
    for batch in load([[cut] for cut in cuts], num_workers, 60.0):
        assert batch.waveforms[0].dtype == torch.float32 and batch.waveforms[0].shape == (320000,)
        batch.waveforms[0] += 1.0
    assert not [w for w in recwarn if "writ" in str(w.message)]


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_batches_that_are_kept_are_not_overwritten(cuts, num_workers):
    batches = [cuts[i % 6 : i % 6 + 2] for i in range(20)]  # more than there are slots
    kept = list(load(batches, num_workers, 60.0))
    for batch, given in zip(kept, batches, strict=True):
        assert batch.ids == [cut.id for cut in given]
        for waveform, cut in zip(batch.waveforms, given, strict=True):
            torch.testing.assert_close(waveform, torch.from_numpy(cut.load_audio())[0], rtol=0, atol=0)


def test_message_of_a_batch_is_small(cuts):
    (one,) = dealt([cuts])
    packed = loading._Share([one], SharedSamples(1, 1, 10**7))._packed(one, 0)
    assert sum(packed.lengths) == 6 * 320_000 and len(pickle.dumps(packed)) < 4096


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("number", [0, 3])
def test_waveforms_are_pinned_in_one_piece(cuts, monkeypatch, shared, number):
    pinned = []

    def pin(samples: torch.Tensor) -> torch.Tensor:
        pinned.append(samples.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    (one,) = dealt([cuts[:number]])
    memory = SharedSamples(1, 1, 10**7) if shared else None
    batch = pickle.loads(pickle.dumps(loading._Share([one], memory)._packed(one, 0))).pin_memory().unpacked().batch
    (whole,) = pinned
    assert all(each.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr() for each in batch.waveforms)
    for waveform, cut in zip(batch.waveforms, cuts[:number], strict=True):
        torch.testing.assert_close(waveform, torch.from_numpy(cut.load_audio())[0], rtol=0, atol=0)
    assert memory is None or memory._used[0] == 0  # the slot is free as soon as its copy is made
