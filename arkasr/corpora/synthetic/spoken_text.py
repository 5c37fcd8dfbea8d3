"""The sentences of a text file, spoken by many voices: speech for text that nobody has read aloud."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from arkasr.corpora.synthetic.acoustics import write_recording
from arkasr.corpora.synthetic.parallel import in_processes
from arkasr.corpora.synthetic.speakers import Speaker, make_speakers
from arkasr.corpora.synthetic.synth import MIXED, Role, Utterance, spoken
from arkasr.errors import UserError
from arkasr.utils.console import log

AUDIO = "audio"  # folder of the recordings
_PEOPLE = "text"  # all voices that no test set of another synthetic corpus has
_BLOCK = 100  # sentences per job. The next job has the next speaker


def read_sentences(path: Path) -> tuple[str, ...]:
    """Read a text file with one sentence per line.

    Args:
        path: The file, UTF-8.

    Returns:
        The lines, with single spaces between words. Lines without a letter cannot be spoken. They are left out, and
        their number is logged.

    Raises:
        UserError: If the file is missing, is not UTF-8, or has no line with a letter.
    """
    try:
        lines = [" ".join(line.split()) for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: miniature.text must be UTF-8 text, but byte {error.start} is not; convert it"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: miniature.text cannot be read ({error.strerror}); name a text file") from None
    found = tuple(line for line in lines if any(sign.isalpha() for sign in line))
    if not found:
        raise UserError(f"{path}: miniature.text has no line with a letter; write one sentence per line")
    if left := len(lines) - len(found):
        log(f"{path}: {left} of {len(lines)} lines have no letter and are left out")
    return found


def digest(sentences: Sequence[str]) -> str:
    """Return a digest of sentences, by which a corpus knows whether its text has changed.

    Args:
        sentences: The sentences.

    Returns:
        64 hexadecimal digits.
    """
    return hashlib.sha256("\n".join(sentences).encode()).hexdigest()


def text_roles(sentences: Sequence[str], sizes: dict[str, int], path: Path) -> tuple[Role, ...]:
    """Distribute sentences over the parts of a corpus.

    Args:
        sentences: The sentences of the file.
        sizes: Number of sentences of every part.
        path: The file, for messages.

    Returns:
        The parts. Each has its own sentences and speakers' numbers.

    Raises:
        UserError: If the file has fewer sentences than the parts need.
    """
    if sum(sizes.values()) > len(sentences):
        raise UserError(
            f"{path}: has {len(sentences)} sentences, but miniature.sizes needs {sum(sizes.values())}; lower the sizes"
        )
    roles, first = [], 0
    for number, (part, size) in enumerate(sizes.items()):
        lines = tuple(sentences[first : first + size])
        roles.append(Role(part, "text", _PEOPLE, 1000 * number + 1, MIXED, "text", lines))
        first += size
    return tuple(roles)


def write_jsonl(
    folder: Path, language: str, roles: Sequence[Role], sizes: dict[str, int], seed: int, done: Callable[..., None]
) -> None:
    """Write `<part>.jsonl`, a table with the columns audio, text and speaker, and `audio/<part>/<speaker>/*.flac`.

    Args:
        folder: Root of the corpus.
        language: `English` or `Chinese`.
        roles: The parts, of `text_roles`.
        sizes: Number of sentences of each part. The parts hold their sentences themselves.
        seed: Seed of rate, pitch and acoustics.
        done: Called with the number of sentences written since the last call. Its default is 1.

    Raises:
        UserError: If no sentence of a part gives sound.
    """
    for role in roles:
        written = 0
        with open(folder / f"{role.part}.jsonl", "w", encoding="utf-8") as table:
            for rows in in_processes(_write_block, _blocks(folder, language, role, seed)):
                table.writelines(rows)
                written += len(rows)
                done(len(rows))
        if not written:
            raise UserError(f"miniature.text: no sentence of {role.part} gives sound with voices of {language}")
        if silent := len(role.lines) - written:
            log(f"{role.part}: {silent} of {len(role.lines)} sentences give no sound and are left out")


def _blocks(folder: Path, language: str, role: Role, seed: int) -> Iterator[tuple[Path, str, Role, Speaker, int, int]]:
    """Yield the arguments of `_write_block` for the sentences of a part."""
    speakers = make_speakers(language, role.people, role.first_number)
    for number, first in enumerate(range(0, len(role.lines), _BLOCK)):
        block = replace(role, lines=role.lines[first : first + _BLOCK])
        yield folder, language, block, speakers[number % len(speakers)], first, seed


def _write_block(folder: Path, language: str, role: Role, speaker: Speaker, first: int, seed: int) -> list[str]:
    """Write the recordings of some sentences and return their lines of the table."""
    return [_written(folder, role, utterance) for utterance in spoken(language, role, speaker, first, seed)]


def _written(folder: Path, role: Role, utterance: Utterance) -> str:
    name = f"{AUDIO}/{role.part}/{utterance.speaker}/{utterance.index:07d}.flac"
    write_recording(folder / name, utterance.samples, subtype="PCM_16")
    row = {"audio": name, "text": " ".join(utterance.words), "speaker": str(utterance.speaker)}
    return json.dumps(row, ensure_ascii=False) + "\n"
