"""The facts that a model card states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from arkasr.corpora.published import UTTERANCES
from arkasr.evaluation import paper_numbers
from arkasr.export.card_texts import TITLES
from arkasr.export.provenance import Stage

NATIVE, PUBLISHED, ADAPTED, ONNX = "native", "published", "adapter", "onnx"  # layouts of an exported folder


@dataclass(frozen=True)
class CardFacts:
    """The facts that a model card states.

    Attributes:
        stages: The runs that produced the model, in order. The last one is the exported run.
        corpus: Content of corpus.json.
        weights: `final`, or the name of a checkpoint.
        size: Number of parameters.
        layout: `NATIVE`, `PUBLISHED` (the layout of the published model), `ADAPTED` (PEFT's, without the base) or
            `ONNX`.
        scores: Content of scores.json for these weights, or None if they were not scored.
        terms: Licence as a Hub identifier, or empty.
        synthetic: Whether the corpus was synthesised, or None if that is unknown.
        onnx: Sections about the ONNX files by title, empty for other layouts.
    """

    stages: Sequence[Stage]
    corpus: dict[str, Any]
    weights: str
    size: int
    layout: str
    scores: dict[str, Any] | None
    terms: str
    synthetic: bool | None
    onnx: Mapping[str, str] = field(default_factory=dict)

    @property
    def last(self) -> Stage:
        """The exported run."""
        return self.stages[-1]

    @property
    def model_type(self) -> str:
        """Type of the model, such as `arkasr`."""
        return str(self.last.config["model"]["type"])

    @property
    def mini(self) -> bool:
        """Whether the model is of miniature scale."""
        return self.corpus.get("scale") != "paper"

    @property
    def name(self) -> str:
        """Title of the card."""
        title = f"{TITLES[self.model_type]} {paper_numbers.title(self.last.run)}, {self.corpus['name']}"
        return title + (", miniature" if self.mini else "")

    @property
    def is_published_corpus(self) -> bool:
        """Whether the corpus is a published one, so that its name describes the data."""
        return self.synthetic is False and self.corpus["name"] in UTTERANCES

    @property
    def language(self) -> str:
        """Name of the corpus's language, or empty if unknown or several."""
        return self.corpus.get("language") or ""

    @property
    def languages(self) -> list[str]:
        """Names of all languages of the corpus, in the order of its test sets, as far as they are known."""
        described = (self.corpus.get("sets") or {}).values()
        found = [self.language] if self.language else [each.get("language") for each in described]
        return [name for name in dict.fromkeys(found) if name]
