"""Who speaks in a miniature corpus: train, dev and test have different people, odd voices speak in the hard set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arkasr.corpora.synthetic.voices import Voice

ACCENTS = {
    "English": ("en-us", "en-gb-scotland", "en-us-nyc", "en-gb-x-rp", "en-029", "en-gb-x-gbcwmd"),
    "Chinese": ("cmn",),
}
# The variants (a throat and a manner each) are split once, so that no voice of a test set was heard in training.
# None of them has a `breath` line: espeak-ng 1.52 reads memory it never set for those (f2, f3, f5, whisper, Storm),
# so that they differ from call to call.
VARIANTS = {
    "train": (
        "m1", "f1", "m2", "zac", "m3", "max", "m4", "f4", "Alex", "Annie", "m7", "Andrea", "Gene", "Lee", "Michael",
        "linda", "Mike", "Jacky", "Hugo", "steph",
    ),
    "dev": ("m5", "shelby", "Denis", "paul"),
    "test": ("m6", "belinda", "Diogo", "anika", "m8", "Marco"),
    "odd": ("croak", "grandma", "klatt2", "AnxiousAndy", "aunty", "grandpa"),
}  # fmt: skip
ROUNDS = 3
RATES = {"train": (125, 165), "dev": (125, 165), "test": (125, 165), "odd": (115, 190)}


@dataclass(frozen=True)
class Speaker:
    """A person: a number (unique in the corpus) and a voice."""

    number: int
    voice: Voice


def cast(language: str, group: str, first_number: int) -> list[Speaker]:
    """Return the people of a group (train, dev, test, odd), always the same ones.

    In training every throat is cast ROUNDS times, each time with another accent, rate and pitch.
    """
    low, high = RATES[group]
    rng = np.random.default_rng(first_number)
    accents, speakers = ACCENTS[language], []
    for i, variant in enumerate(VARIANTS[group] * (ROUNDS if group == "train" else 1)):
        accent = accents[(i + i // len(VARIANTS[group])) % len(accents)]
        voice = Voice(f"{accent}+{variant}", int(rng.integers(low, high + 1)), int(rng.integers(35, 66)), 50)
        speakers.append(Speaker(first_number + i, voice))
    return speakers
