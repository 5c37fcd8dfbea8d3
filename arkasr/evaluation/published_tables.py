"""The published tables of error rates: the paper's Table 1, and the two tables of the model card of ARK-ASR-0.6B.

The numbers of a table are comparable only with scores of its profile. The card's English table holds the numbers of the
Open ASR Leaderboard for the two Qwen models, so it was scored by the leaderboard's normaliser. Its Chinese table has
the same numbers as Table 1 for them, so it was scored like Table 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from arkasr.corpora.published import TEST_SETS
from arkasr.evaluation import paper_numbers

PAPER, CARD = "paper", "card"


@dataclass(frozen=True)
class PublishedTable:
    """One published table.

    Attributes:
        name: Value of `arkasr table --tables`.
        title: Heading.
        source: `paper` or `card`.
        profile: Scoring profile of its numbers.
        columns: Column of the table by the column that corpus.yaml names.
        rows: Model and error rates in percent, by the run that corresponds to the row.
        has_average: Whether the last column is the mean of the others.
        clips: Number of clips that the numbers of a column are of, where it is known.
    """

    name: str
    title: str
    source: str
    profile: str
    columns: Mapping[str, str]
    rows: Mapping[str, tuple[str, tuple[float, ...]]]
    has_average: bool = False
    clips: Mapping[str, int] = field(default_factory=dict)

    def rate(self, row: str, column: str) -> float | None:
        """Return one number.

        Args:
            row: Key of `rows`, or another text.
            column: Key of `columns`, or `AVERAGE`.

        Returns:
            The error rate in percent, or None if the table has no such row.
        """
        names = [*self.columns, *([AVERAGE] if self.has_average else [])]
        return self.rows[row][1][names.index(column)] if row in self.rows and column in names else None

    def model(self, row: str) -> str:
        """Return the name of the model of a row.

        Args:
            row: Key of `rows`, or another text.

        Returns:
            The published name, or an empty text if there is no such row.
        """
        return self.rows[row][0] if row in self.rows else ""


AVERAGE = "Average"
CLIPS = {column: clips for column, (clips, _) in TEST_SETS.items()}

TABLES = {
    table.name: table
    for table in (
        PublishedTable(
            "table1",
            "Table 1: error rates on the paper's test sets",
            PAPER,
            "paper",
            {column: column for column in paper_numbers.COLUMNS},
            paper_numbers.TABLE1,
            clips=CLIPS,
        ),
        PublishedTable(
            "english",
            "English error rates of the model card",
            CARD,
            "leaderboard-2026-08",
            {
                "AMI": "AMI",
                "Earnings22": "Earnings22",
                "GigaSpeech": "GigaSpeech",
                "Libri clean": "LS Clean",
                "Libri other": "LS Other",
                "SPGISpeech": "SPGISpeech",
                "VoxPopuli": "VoxPopuli",
            },
            {
                "base_td_opd": ("Ark-ASR", (11.67, 10.11, 8.93, 1.93, 4.00, 2.89, 6.96, 6.64)),
                "qwen3_asr_0.6b": ("Qwen3-ASR-0.6B", (11.66, 11.06, 9.14, 2.13, 4.45, 3.03, 7.07, 6.93)),
                "teacher": ("Qwen3-ASR-1.7B", (10.56, 10.25, 8.74, 1.63, 3.40, 2.84, 6.35, 6.25)),
            },
            has_average=True,
            clips=CLIPS | {"AMI": 12643, "Earnings22": 2741, "GigaSpeech": 19931},
        ),
        PublishedTable(
            "chinese",
            "Chinese error rates of the model card",
            CARD,
            "paper",
            {"AISHELL-1": "AISHELL-1", "Wenet meeting": "Wenet-meeting", "Wenet net": "Wenet-net"},
            {
                "base_td_opd": ("Ark-ASR", (2.02, 5.92, 4.96, 4.30)),
                "qwen3_asr_0.6b": ("Qwen3-ASR-0.6B", (2.07, 5.57, 5.45, 4.36)),
                "teacher": ("Qwen3-ASR-1.7B", (1.50, 4.69, 4.55, 3.58)),
            },
            has_average=True,
            clips=CLIPS,
        ),
    )
}
