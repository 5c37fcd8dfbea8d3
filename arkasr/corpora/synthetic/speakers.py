"""The speakers of a synthetic corpus.

Train, dev and test have different speakers. The hard test sets have unusual voices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arkasr.corpora.synthetic.voices import Voice

ACCENTS = {
    "English": ("en-us", "en-gb-scotland", "en-us-nyc", "en-gb-x-rp", "en-029", "en-gb-x-gbcwmd"),
    "Chinese": ("cmn",),
}
# espeak-ng's voice variants. Each belongs to one group, so that no voice of a test set occurs in training. Variants
# with a `breath` line (f2, f3, f5, whisper, Storm) are excluded: espeak-ng 1.52 reads uninitialised memory for them,
# so their samples differ from call to call.
VARIANTS = {
    "train": (
        "m1", "f1", "m2", "zac", "m3", "max", "m4", "f4", "Alex", "Annie", "m7", "Andrea", "Gene", "Lee", "Michael",
        "linda", "Mike", "Jacky", "Hugo", "steph",
    ),
    "dev": ("m5", "shelby", "Denis", "paul"),
    "test": ("m6", "belinda", "Diogo", "anika", "m8", "Marco"),
    "odd": ("croak", "grandma", "klatt2", "AnxiousAndy", "aunty", "grandpa"),
}  # fmt: skip
# The groups of the study: the speakers with transcripts, those of the pool without, and those of the teacher's data.
VARIANTS |= {
    "study base": VARIANTS["train"],
    "study pool": (
        "Andy", "Henrique", "Mario", "adam", "antonio", "david", "edward", "iven", "iven3", "john", "kaukovalta",
        "marcelo", "michel", "pedro", "quincy", "rob", "RicishayMax", "announcer", "benjamin", "robosoft6",
    ),
    "study dev": (*VARIANTS["dev"], "ian", "iven2"),
    "study test": (*VARIANTS["test"], "norbert", "ed", "miguel", "travis", "robert", "pablo"),
    "study odd": (*VARIANTS["odd"], "klatt4", "robosoft4", "UniRobot", "Tweaky", "gustave", "boris"),
}  # fmt: skip
VARIANTS["study teacher"] = VARIANTS["text"] = (*VARIANTS["study base"], *VARIANTS["study pool"])
# Speakers per variant, 1 for groups that are not named.
ROUNDS = {
    "train": 3, "study base": 3, "study pool": 3, "study teacher": 3, "study dev": 2, "study test": 2, "study odd": 2,
    "text": 3,
}  # fmt: skip
# Slowest and fastest speaking rate of each group, in words per minute.
RATES = {
    "train": (125, 165), "dev": (125, 165), "test": (125, 165), "odd": (115, 190),
    "study base": (125, 165), "study pool": (125, 165), "study teacher": (125, 165), "study dev": (125, 165),
    "study test": (125, 165), "study odd": (115, 190),
    "text": (90, 150),
}  # fmt: skip


@dataclass(frozen=True)
class Speaker:
    """One speaker.

    Attributes:
        number: Number of the speaker, unique in the corpus.
        voice: Parameters of espeak-ng.
    """

    number: int
    voice: Voice


def make_speakers(language: str, group: str, first_number: int) -> list[Speaker]:
    """Draw the speakers of one group. The same arguments give the same speakers.

    Each variant makes as many speakers as ROUNDS says, each with another accent, rate and pitch.

    Args:
        language: `English` or `Chinese`.
        group: A key of VARIANTS.
        first_number: Number of the first speaker, and the seed.

    Returns:
        The speakers, numbered from `first_number`.
    """
    low, high = RATES[group]
    rng = np.random.default_rng(first_number)
    accents, speakers = ACCENTS[language], []
    for i, variant in enumerate(VARIANTS[group] * ROUNDS.get(group, 1)):
        accent = accents[(i + i // len(VARIANTS[group])) % len(accents)]
        voice = Voice(f"{accent}+{variant}", int(rng.integers(low, high + 1)), int(rng.integers(35, 66)), 50)
        speakers.append(Speaker(first_number + i, voice))
    return speakers
