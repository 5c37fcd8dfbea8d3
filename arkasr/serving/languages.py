"""The languages of a model, for requests and for the list of the page."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from huggingface_hub import ModelCard, try_to_load_from_cache

from arkasr.errors import UserError
from arkasr.languages import LANGUAGES, known_language
from arkasr.transcription.recognizer import Recognizer
from arkasr.utils.console import log
from arkasr.utils.hub import is_hub_id

CARD = "README.md"


class ModelLanguages(NamedTuple):
    """English names of languages.

    Attributes:
        accepted: Those that the model can be asked for. Models whose prompt names no language accept all.
        trained: Those of `accepted` that the model card names. Empty if there is no card, or if it names none.
    """

    accepted: tuple[str, ...] = tuple(LANGUAGES)
    trained: tuple[str, ...] = ()


def languages_of(recognizer: Recognizer) -> ModelLanguages:
    """Find out which languages a model accepts, and which ones it was trained on.

    Checkpoints do not record their languages. The model cards of exported and published models do.

    Args:
        recognizer: The model. Of teacher plugins nothing is known, so all languages count as accepted.

    Returns:
        The languages.
    """
    accepted = tuple(name for name in LANGUAGES if _is_accepted(recognizer, name))
    named = _languages_of_card(recognizer.name)
    return ModelLanguages(accepted, tuple(name for name in accepted if name in named))


def check_language(language: str, name: str, languages: ModelLanguages) -> None:
    """Check the language of requests that name none.

    Args:
        language: English name of the language.
        name: Id of the model, for messages.
        languages: Those of the model.

    Raises:
        UserError: The model does not accept the language.
    """
    if language not in languages.accepted:
        raise UserError(
            f"--language {language}: {name} accepts {', '.join(languages.accepted)}; name one of them with --language"
        )
    if languages.trained and language not in languages.trained:
        log(
            f"warning: {name} was trained on {', '.join(languages.trained)}, but requests that name no language get "
            f"{language}; name one of its languages with --language"
        )


def _is_accepted(recognizer: Recognizer, name: str) -> bool:
    if recognizer.lm is None:
        return True
    try:
        recognizer.lm.prompt_text(name)
    except UserError:
        return False
    return True


def _languages_of_card(model: str) -> set[str]:
    path = try_to_load_from_cache(model, CARD) if is_hub_id(model) else Path(model) / CARD
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return set()
    try:
        named = ModelCard(Path(path).read_text(encoding="utf-8")).data.get("language") or []
    except Exception as error:  # any: people write cards by hand, and the model works without one
        reason = " ".join(str(error).split())[:100]
        log(f"warning: {path}: the languages of the model card cannot be read ({reason}); all are offered alike")
        return set()
    codes = [named] if isinstance(named, str) else named
    # YAML reads the code of Norwegian, no, as false.
    found = (known_language("no" if code is False else str(code)) for code in codes)
    return {language.name for language in found if language}
