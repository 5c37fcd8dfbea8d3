"""Compare the alignment of token mappers with passing text between two models, with a real tokenizer.

    python benchmarks/mappers.py --tokenizer ../shared/tokenizers/qwen3
    python benchmarks/mappers.py --tokenizer Qwen/Qwen3-ASR-1.7B-hf --clips 40

Student and teacher have the tokenizer, each with the special tokens of its own prompt. The transcripts are English,
Mandarin and mixed. "text" decodes the student's ids, strips the text and tokenises it again for the teacher, and pairs
no positions. The mappers pair all positions as well. Each method takes all transcripts of a step at once. Time is the
minimum of the repeats of one process.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

from arkasr.model.reading import load_tokenizer
from arkasr.model.tokenization import ARK_TOKENS, QWEN_TOKENS
from arkasr.plugins import registry

TEXTS = {
    "English": "the committee agreed that the report, published in 1998, wasn't complete and should be written again",
    "Mandarin": "今天上午的会议上大家讨论了明年的工作计划并且决定增加语音识别项目的预算",
    "mixed": "我用 Python 写了一个 speech recognition 系统 accuracy 是百分之九十五 latency 只有 200 毫秒",
}
NAMES = ("identity", "shared_strings", "byte_offsets")


def sides(path: str) -> tuple[Any, Any]:
    """Return student and teacher: anything with `tokenizer` and `stop_ids`.

    Args:
        path: Folder or Hub id of a tokenizer.

    Returns:
        Student and teacher.
    """
    found = []
    for tokens in (ARK_TOKENS, QWEN_TOKENS):
        tokenizer = copy.deepcopy(load_tokenizer(path))
        tokenizer.add_special_tokens({"additional_special_tokens": tokens, "eos_token": "<|im_end|>"})
        found.append(SimpleNamespace(tokenizer=tokenizer, stop_ids=[tokenizer.convert_tokens_to_ids("<|im_end|>")]))
    return found[0], found[1]


def by_text(student: Any, teacher: Any, ids: Sequence[Sequence[int]]) -> list[list[int]]:
    """Pass transcripts as text.

    Args:
        student: See `sides`.
        teacher: See `sides`.
        ids: Transcripts in the student's tokens, with the stop token.

    Returns:
        The transcripts in the teacher's tokens, with the stop token.
    """
    texts = [student.tokenizer.decode(row, skip_special_tokens=True).strip() for row in ids]
    return [[*teacher.tokenizer.encode(text, add_special_tokens=False), teacher.stop_ids[0]] for text in texts]


def least_seconds(work: Callable[[], object], repeats: int) -> float:
    """Time a function.

    Args:
        work: The function.
        repeats: Number of calls.

    Returns:
        The shortest call, in seconds of CPU time.
    """
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def main(argv: Sequence[str] | None = None) -> None:
    """Print one row per language and method.

    Args:
        argv: Command line.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="folder or Hub id of a tokenizer")
    parser.add_argument("--clips", type=int, default=40, help="transcripts per step (default: 40)")
    parser.add_argument("--repeats", type=int, default=20, help="repeats, of which the shortest counts (default: 20)")
    args = parser.parse_args(argv)
    student, teacher = sides(args.tokenizer)
    mappers = {name: registry.create("token_mapper", name, {}, student=student, teacher=teacher) for name in NAMES}
    print("| text | tokens | method | ms per step | times the time of text |\n|---|---:|---|---:|---:|")
    for language, text in TEXTS.items():
        row = [*student.tokenizer.encode(text, add_special_tokens=False), student.stop_ids[0]]
        ids = [row] * args.clips
        base = least_seconds(partial(by_text, student, teacher, ids), args.repeats)
        print(f"| {language} | {len(row) * args.clips} | text | {1000 * base:.2f} | 1 |")
        for name, mapper in mappers.items():
            found = mapper.align(ids)
            if found.teacher_ids != by_text(student, teacher, ids) or found.num_mismatched:
                raise SystemExit(f"{language}: {name} gives the teacher other tokens than the text")
            spent = least_seconds(partial(mapper.align, ids), args.repeats)
            print(f"| {language} | {len(row) * args.clips} | {name} | {1000 * spent:.2f} | {spent / base:.2f} |")


if __name__ == "__main__":
    main()
