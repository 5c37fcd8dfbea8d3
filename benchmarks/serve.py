"""Throughput and latency of `arkasr serve`: many clients at once against one that sends the same clips in turn.

Starts the service on this machine, sends each clip of a manifest once per way, and prints seconds of audio per second,
the median and the 99th percentile of the time of a request, the service's peak memory, and requests that failed. Fails
if a request failed.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import soundfile
from lhotse import CutSet

BOUNDARY = "b0undary"


class Answer(NamedTuple):
    """The answer to one request: status, text, and seconds until it came."""

    status: int
    text: str
    seconds: float


class Way(NamedTuple):
    """One way to send all clips: number of clients, answers, seconds of the wall clock, and peak memory in bytes."""

    clients: int
    answers: list[Answer]
    seconds: float
    peak: int


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--clips", required=True, help="Lhotse manifest of cuts")
    parser.add_argument("--count", type=int, default=256, help="number of clips")
    parser.add_argument("--clients", type=int, default=32, help="clients at once")
    parser.add_argument("--options", nargs="*", default=[], help="further options of `arkasr serve`, without --")
    return parser.parse_args(words)


def read_clips(manifest: str, count: int) -> tuple[list[bytes], float]:
    """Return clips as WAV files, and their length in seconds together."""
    clips, total = [], 0.0
    for cut in CutSet.from_file(manifest).subset(first=count):
        file = io.BytesIO()
        soundfile.write(file, cut.load_audio()[0], int(cut.sampling_rate), format="WAV")
        clips.append(file.getvalue())
        total += cut.duration
    return clips, total


@contextmanager
def service(model: str, options: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Run the service. Yields its process id and its port."""
    command = [sys.executable, "-u", "-m", "arkasr", "serve", "--model", model, "--port", "0"]
    process = subprocess.Popen([*command, *(f"--{each}" for each in options)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = next(int(found[1]) for line in process.stdout if (found := re.search(r"http://\S+:(\d+)", line)))
        with ThreadPoolExecutor(1) as reader:
            reader.submit(process.stdout.read)  # a full pipe would stop the service
            yield process.pid, port
            process.terminate()
    finally:
        process.terminate()
        process.wait()


def send(port: int, clip: bytes) -> Answer:
    """Transcribe one clip."""
    begin = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'.encode()
    body = begin + clip + f"\r\n--{BOUNDARY}--\r\n".encode()
    started = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    connection.request("POST", "/v1/audio/transcriptions", body, headers)
    answer = connection.getresponse()
    found = json.loads(answer.read())
    connection.close()
    return Answer(answer.status, found.get("text", ""), time.perf_counter() - started)


def send_all(pid: int, port: int, clips: Sequence[bytes], clients: int) -> Way:
    """Send all clips by some clients, each of which sends its next clip when it has its answer."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")  # resets the peak to the present size
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda clip: send(port, clip), clips))
    seconds = time.perf_counter() - started
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return Way(clients, answers, seconds, 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1]))


def row(way: Way, base: Way, audio: float) -> str:
    """Return one row of the table."""
    times = sorted(answer.seconds for answer in way.answers)
    p99 = statistics.quantiles(times, n=100, method="inclusive")[98] if len(times) > 1 else times[0]
    failed = sum(answer.status != 200 for answer in way.answers)
    cells = f"{audio / way.seconds:.1f} | {base.seconds / way.seconds:.2f} | {statistics.median(times):.2f} | {p99:.2f}"
    return f"| {way.clients} | {cells} | {way.peak / 2**20:.0f} | {failed} |"


def main(words: Sequence[str] | None = None) -> None:
    """Print one row per number of clients."""
    args = arguments(words)
    clips, audio = read_clips(args.clips, args.count)
    with service(args.model, args.options) as (pid, port):
        send_all(pid, port, clips[:4], 2)  # what is loaded or compiled at the first request
        ways = [send_all(pid, port, clips, clients) for clients in (1, args.clients)]
    print(f"{len(clips)} clips, {audio:.0f} s of audio, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}")
    print("| clients | audio s/s | ratio | p50 s | p99 s | peak MiB | failed |\n|---|---|---|---|---|---|---|")
    for way in ways:
        print(row(way, ways[0], audio))
    texts = [[answer.text for answer in way.answers] for way in ways]
    print(f"texts that differ: {sum(a != b for a, b in zip(*texts))}")
    raise SystemExit(any(answer.status != 200 for way in ways for answer in way.answers))


if __name__ == "__main__":
    main()
