"""Throughput and latency of `arkasr serve`: many clients at once against one that sends the same clips in turn.

    python benchmarks/serve.py --model exp/mini/base_opd/final --clips data/test.jsonl.gz
    python benchmarks/serve.py --size paper --vocab 151936     # random weights of the published sizes, on one GPU

Starts the service on this machine, sends each clip of a manifest once per way, and prints seconds of audio per second,
the median and the 99th percentile of the time of a request, the service's peak memory, and requests that failed. Fails
if a request failed. With --size, clips are noise, and transcripts end at a cap (see `capped.py`).
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import fresh
import numpy as np
import soundfile
from capped import kept_weights
from lhotse import CutSet

from arkasr import SAMPLE_RATE
from arkasr.transcription.recognizer import place

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--model", default="", help="folder of the model")
    chosen.add_argument("--size", choices=list(fresh.STUDENTS), help="sizes of random weights")
    parser.add_argument("--clips", default="", help="Lhotse manifest of cuts, with --model")
    parser.add_argument("--vocab", type=int, default=473, help="tokens of random weights (default: %(default)s)")
    parser.add_argument("--weights", type=Path, help="where random weights are kept (default: a temporary folder)")
    parser.add_argument("--longest", type=float, default=8.0, help="seconds of noise, from 1 (default: %(default)s)")
    parser.add_argument("--count", type=int, default=256, help="number of clips")
    parser.add_argument("--clients", type=int, default=32, help="clients at once")
    parser.add_argument("--repeats", type=int, default=1, help="rounds of many clients (default: %(default)s)")
    parser.add_argument("--options", nargs="*", default=[], help="further options of `arkasr serve`, without --")
    args = parser.parse_args(words)
    if bool(args.model) != bool(args.clips):
        parser.error("--clips: names what --model transcribes; give both, or --size alone")
    return args


def read_clips(manifest: str, count: int) -> tuple[list[bytes], float]:
    """Return clips as WAV files, and their length in seconds together."""
    cuts = list(CutSet.from_file(manifest).subset(first=count))
    clips = [wav(cut.load_audio()[0], int(cut.sampling_rate)) for cut in cuts]
    return clips, sum(cut.duration for cut in cuts)


def noise(count: int, longest: float) -> tuple[list[bytes], float]:
    """Return clips of noise as WAV files, of lengths that are uniform from 1 s, and their length together."""
    draw = random.Random(0)
    lengths = [draw.uniform(1.0, longest) for _ in range(count)]
    return [wav(fresh.clips(1, length)[0].numpy(), SAMPLE_RATE) for length in lengths], sum(lengths)


def wav(samples: np.ndarray, rate: int) -> bytes:
    """Return a WAV file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV")
    return file.getvalue()


@contextmanager
def service(model: str, options: Sequence[str], program: Sequence[str] = ("-m", "arkasr")) -> Iterator[tuple[int, int]]:
    """Run the service, by the command line of a program. Yields its process id and its port."""
    command = [sys.executable, "-u", *program, "serve", "--model", model, "--port", "0"]
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
    with suppress(OSError):  # of kernels without it, where the peak is that since the start
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
    if args.model:
        clips, audio = read_clips(args.clips, args.count)
        ways = measure(args, args.model, clips, ("-m", "arkasr"))
    else:
        clips, audio = noise(args.count, args.longest)
        with tempfile.TemporaryDirectory() as temporary:
            model = str(kept_weights(args.size, args.vocab, args.weights or Path(temporary), *place()))
            ways = measure(args, model, clips, (str(Path(__file__).with_name("capped.py")),))
    print(f"{len(clips)} clips, {audio:.0f} s of audio, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}")
    print("| clients | audio s/s | ratio | p50 s | p99 s | peak MiB | failed |\n|---|---|---|---|---|---|---|")
    for way in ways:
        print(row(way, ways[0], audio))
    texts = [[answer.text for answer in way.answers] for way in ways[:2]]
    print(f"texts that differ: {sum(a != b for a, b in zip(*texts))}")
    raise SystemExit(any(answer.status != 200 for way in ways for answer in way.answers))


def measure(args: argparse.Namespace, model: str, clips: Sequence[bytes], program: Sequence[str]) -> list[Way]:
    """Return one client's way of sending the clips, then that of many, as often as --repeats says."""
    with service(model, args.options, program) as (pid, port):
        send_all(pid, port, clips[:4], 2)  # what is loaded or compiled at the first request
        return [send_all(pid, port, clips, clients) for clients in (1, *[args.clients] * args.repeats)]


if __name__ == "__main__":
    main()
