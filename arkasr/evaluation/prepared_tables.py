"""Test sets in tables, which stage 1 prepares for an experiment."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from arkasr.config.yaml_io import to_yaml
from arkasr.corpora.layouts.table_files import find_tables
from arkasr.corpora.layouts.table_rows import CSV_SUFFIXES, JSONL_SUFFIXES
from arkasr.corpora.scale import RESERVED, set_name
from arkasr.data.lines import LINE_SUFFIXES
from arkasr.data.shar import is_shar
from arkasr.errors import UserError
from arkasr.utils.console import log
from arkasr.utils.files import write_text

SUFFIXES = {"jsonl": JSONL_SUFFIXES, "csv": CSV_SUFFIXES}


def is_cuts(path: Path) -> bool:
    """Return whether a path holds cuts of Lhotse, rather than a table.

    Args:
        path: A file or a folder.

    Returns:
        True for Shar folders, for files of cuts, and for folders whose first file of lines holds cuts.
    """
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.name.endswith(LINE_SUFFIXES))
        return is_shar(path) or (bool(files) and is_cuts(files[0]))
    if not path.name.endswith(LINE_SUFFIXES):
        return False
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            first = json.loads(next(lines, ""))
    except (OSError, EOFError, ValueError):
        return False  # what is wrong is reported by the reader of tables
    return isinstance(first, dict) and str(first.get("type", "")).endswith("Cut") and "id" in first


def prepare_table(name: str, path: Path, language: str, folder: Path, value: str) -> Path:
    """Prepare the rows of tables as test sets, unless they are prepared already.

    Args:
        name: Name of the test set.
        path: A table, or a folder of tables. Each part becomes a test set. Those for training are left out, which is
            logged.
        language: Language of rows that name none, or empty.
        folder: Where the data directory, and the corpus.yaml that describes it, are written.
        value: The value of --test_sets, for messages.

    Returns:
        The data directory.

    Raises:
        UserError: There is no table, it has no other part, or stage 1 cannot use it.
    """
    from arkasr.corpora.corpus import read_corpus_yaml
    from arkasr.corpora.layouts.registry import require_layout
    from arkasr.corpora.prepare import prepare  # of stage 1, which other test sets do not need

    layout = next((layout for layout, suffixes in SUFFIXES.items() if find_tables(path, suffixes)), "")
    if not layout:
        known = ", ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
        raise UserError(
            f"--test_sets {value}: {path} is no manifest of cuts, no table ({known}) and no prepared data directory; "
            "name one of them"
        )
    description = {"name": name, "layout": layout, **({"language": language} if language else {})}
    corpus_yaml = folder / "corpus.yaml"
    write_text(corpus_yaml, to_yaml(description))
    parts = require_layout(read_corpus_yaml(corpus_yaml), path).parts()
    reserved = [part for part in parts if set_name(part) in RESERVED]
    tests = [part for part in parts if part not in reserved]
    if reserved and not tests:
        raise UserError(
            f"--test_sets {value}: {path} holds rows of the part {reserved[0]}, which is no name of a test set; give "
            "the file another name, or its rows a column `split` with another value, such as test"
        )
    if reserved:
        log(f"--test_sets {value}: decodes {', '.join(tests)}, not {', '.join(reserved)}")
    write_text(corpus_yaml, to_yaml(description | {"train": [], "dev": [], "test": tests}))
    prepare(str(corpus_yaml), "paper", str(path), str(folder / "data"), 1)
    return folder / "data"
