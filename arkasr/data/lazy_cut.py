"""Clips of which only the length is known until their audio is needed, so that dealing them into batches is cheap."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from lhotse.cut import Cut


class LazyCut(NamedTuple):
    """One clip.

    Attributes:
        seconds: Its duration at the speed at which it is read.
        text_bytes: Length of its transcript in UTF-8.
        make: Returns its cut, each time it is called.
        suffix: Added to the id of the cut.
        speed: The speed at which it is read, see `arkasr.data.speeds`.
    """

    seconds: float
    text_bytes: int
    make: Callable[[], Cut]
    suffix: str = ""
    speed: float = 1.0

    @classmethod
    def of(cls, cut: Cut) -> LazyCut:
        """Wrap a cut.

        Args:
            cut: The cut of a clip.

        Returns:
            A clip that holds the cut.
        """
        return cls(cut.duration, text_bytes(each.text for each in cut.supervisions), partial(_same, cut))

    def cut(self) -> Cut:
        """Return the cut of the clip.

        Raises:
            UserError: The entry of the manifest has odd values.
        """
        cut = self.make()
        return cut.with_id(f"{cut.id}{self.suffix}") if self.suffix else cut


def _same(cut: Cut) -> Cut:
    return cut


def text_bytes(texts: Iterable[str | None]) -> int:
    """Measure texts.

    Args:
        texts: The texts of the supervisions of one clip. None counts as empty.

    Returns:
        Number of bytes in UTF-8.
    """
    return sum(len(text.encode(errors="surrogatepass")) for text in texts if text)
