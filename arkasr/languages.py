"""The languages of prompts, normalisers, metrics and corpora: names, codes, and how each is scored.

The table holds the 30 languages of Qwen3-ASR and the 19 of the published ARK-ASR-0.6B. Both lists overlap.
"""

from __future__ import annotations

import difflib
from typing import NamedTuple

from arkasr.errors import UserError


class Language(NamedTuple):
    """One language.

    Attributes:
        name: English name, as manifests and prompts use it.
        code: Code of ISO 639-1, or of ISO 639-3 if there is none.
        metric: Error rate that the field reports: `wer`, or `cer` for languages that are written without spaces
            between words.
        normalizer: Name of the normaliser, see `arkasr.evaluation.normalize`.
    """

    name: str
    code: str
    metric: str
    normalizer: str


_WITHOUT_SPACES = {"Chinese": "mandarin", "Cantonese": "mandarin", "Japanese": "characters", "Thai": "characters"}
_CODES = {
    "Arabic": "ar", "Cantonese": "yue", "Chinese": "zh", "Croatian": "hr", "Czech": "cs", "Danish": "da",
    "Dutch": "nl", "English": "en", "Estonian": "et", "Filipino": "fil", "Finnish": "fi", "French": "fr",
    "German": "de", "Greek": "el", "Hindi": "hi", "Hungarian": "hu", "Indonesian": "id", "Italian": "it",
    "Japanese": "ja", "Korean": "ko", "Lithuanian": "lt", "Macedonian": "mk", "Malay": "ms", "Persian": "fa",
    "Polish": "pl", "Portuguese": "pt", "Romanian": "ro", "Russian": "ru", "Slovak": "sk", "Slovene": "sl",
    "Spanish": "es", "Swedish": "sv", "Thai": "th", "Turkish": "tr", "Vietnamese": "vi",
}  # fmt: skip
_ALIASES = {"mandarin": "Chinese", "cmn": "Chinese", "slovenian": "Slovene", "farsi": "Persian", "tagalog": "Filipino"}


def _make(name: str) -> Language:
    words = "english" if name == "English" else "words"
    cer = name in _WITHOUT_SPACES
    return Language(name, _CODES[name], "cer" if cer else "wer", _WITHOUT_SPACES.get(name, words))


LANGUAGES = {name: _make(name) for name in _CODES}
_BY_SPELLING = {
    **{name.lower(): language for name, language in LANGUAGES.items()},
    **{language.code: language for language in LANGUAGES.values()},
    **{alias: LANGUAGES[name] for alias, name in _ALIASES.items()},
}


def known_language(text: str) -> Language | None:
    """Look up a language.

    Args:
        text: Name or code in any case, also with a region: `German`, `de`, `de-AT`, `zh_CN`.

    Returns:
        The language, or None if the table has none of this name or code.
    """
    word = text.strip().lower()
    return _BY_SPELLING.get(word) or _BY_SPELLING.get(word.replace("_", "-").partition("-")[0])


def find_language(text: str, where: str = "language") -> Language:
    """Look up a language that must be in the table.

    Args:
        text: See `known_language`.
        where: File or key that holds the text, for the message.

    Returns:
        The language.

    Raises:
        UserError: The table has no such language. The message names the nearest one.
    """
    found = known_language(text)
    if found is not None:
        return found
    near = difflib.get_close_matches(text.strip().lower(), _BY_SPELLING, n=1, cutoff=0.5)
    hint = f"; did you mean {_BY_SPELLING[near[0]].name}?" if near else ""
    allowed = ", ".join(f"{language.name} ({language.code})" for language in LANGUAGES.values())
    raise UserError(f"{where} {text!r}: is not a language that is known here{hint}; use one of: {allowed}")
