"""A corpus.yaml of a recipe with only a few sentences per part, and the contents of a folder."""

from __future__ import annotations

import re
from pathlib import Path

EGS = Path(__file__).parents[2] / "egs"
SIZES = {
    "librispeech": "{train-clean-5: 6, dev-clean-2: 2, test-clean: 2, test-other: 2}",
    "aishell": "{train: 6, dev: 2, test: 2}",
    "wenetspeech": "{L: 8, M: 4, S: 2, DEV: 2, TEST_NET: 2, TEST_MEETING: 2}",
}


def tiny(folder: Path, name: str, seed: int = 1) -> str:
    """Write the corpus.yaml of a recipe with only a few sentences per part."""
    text = (EGS / name / "corpus.yaml").read_text()
    text = re.sub(r"^  seed: .*", f"  seed: {seed}", text, count=1, flags=re.M)
    text = re.sub(r"^  sizes: .*", f"  sizes: {SIZES[name]}", text, count=1, flags=re.M)
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return str(path)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
