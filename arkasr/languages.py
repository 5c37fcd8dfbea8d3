"""The languages of prompts, metrics and corpora: names, codes, and the error rate of each.

The table holds the languages of Qwen3-ASR, of the published ARK-ASR-0.6B and of Whisper.
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
    """

    name: str
    code: str
    metric: str


_WITHOUT_SPACES = ("Burmese", "Cantonese", "Chinese", "Japanese", "Khmer", "Lao", "Thai", "Tibetan")
_CODES = {
    "Afrikaans": "af", "Albanian": "sq", "Amharic": "am", "Arabic": "ar", "Armenian": "hy", "Assamese": "as",
    "Azerbaijani": "az", "Bashkir": "ba", "Basque": "eu", "Belarusian": "be", "Bengali": "bn", "Bosnian": "bs",
    "Breton": "br", "Bulgarian": "bg", "Burmese": "my", "Cantonese": "yue", "Catalan": "ca", "Chinese": "zh",
    "Croatian": "hr", "Czech": "cs", "Danish": "da", "Dutch": "nl", "English": "en", "Estonian": "et",
    "Faroese": "fo", "Filipino": "fil", "Finnish": "fi", "French": "fr", "Galician": "gl", "Georgian": "ka",
    "German": "de", "Greek": "el", "Gujarati": "gu", "Haitian Creole": "ht", "Hausa": "ha", "Hawaiian": "haw",
    "Hebrew": "he", "Hindi": "hi", "Hungarian": "hu", "Icelandic": "is", "Indonesian": "id", "Italian": "it",
    "Japanese": "ja", "Javanese": "jv", "Kannada": "kn", "Kazakh": "kk", "Khmer": "km", "Korean": "ko", "Lao": "lo",
    "Latin": "la", "Latvian": "lv", "Lingala": "ln", "Lithuanian": "lt", "Luxembourgish": "lb", "Macedonian": "mk",
    "Malagasy": "mg", "Malay": "ms", "Malayalam": "ml", "Maltese": "mt", "Maori": "mi", "Marathi": "mr",
    "Mongolian": "mn", "Nepali": "ne", "Norwegian": "no", "Nynorsk": "nn", "Occitan": "oc", "Pashto": "ps",
    "Persian": "fa", "Polish": "pl", "Portuguese": "pt", "Punjabi": "pa", "Romanian": "ro", "Russian": "ru",
    "Sanskrit": "sa", "Serbian": "sr", "Shona": "sn", "Sindhi": "sd", "Sinhala": "si", "Slovak": "sk",
    "Slovene": "sl", "Somali": "so", "Spanish": "es", "Sundanese": "su", "Swahili": "sw", "Swedish": "sv",
    "Tajik": "tg", "Tamil": "ta", "Tatar": "tt", "Telugu": "te", "Thai": "th", "Tibetan": "bo", "Turkish": "tr",
    "Turkmen": "tk", "Ukrainian": "uk", "Urdu": "ur", "Uzbek": "uz", "Vietnamese": "vi", "Welsh": "cy",
    "Yiddish": "yi", "Yoruba": "yo",
}  # fmt: skip
_ALIASES = {
    "mandarin": "Chinese", "cmn": "Chinese", "slovenian": "Slovene", "farsi": "Persian", "tagalog": "Filipino",
    "tl": "Filipino", "myanmar": "Burmese", "jw": "Javanese", "haitian": "Haitian Creole", "nb": "Norwegian",
}  # fmt: skip


def _make(name: str) -> Language:
    return Language(name, _CODES[name], "cer" if name in _WITHOUT_SPACES else "wer")


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
    names = [spelling for spelling in _BY_SPELLING if len(spelling) > 3]  # codes are near to any short word
    near = difflib.get_close_matches(text.strip().lower(), names, n=1)
    hint = f" (did you mean {_BY_SPELLING[near[0]].name}?)" if near else ""
    raise UserError(
        f"{where} {text!r}: is not a language that is known here{hint}; use an English name or an ISO 639 code, such "
        f"as German or de (arkasr/languages.py lists all {len(LANGUAGES)})"
    )
