"""Voices of espeak-ng."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from arkasr.corpora.synthetic.speakers import VARIANTS


@pytest.mark.slow
def test_every_voice_exists_and_gives_speech():
    loader = pytest.importorskip("espeakng_loader")
    from arkasr.corpora.synthetic.speakers import ACCENTS
    from arkasr.corpora.synthetic.voices import Synthesizer, Voice

    files = {path.name: path for path in (Path(loader.get_data_path()) / "voices" / "!v").iterdir()}
    for name in itertools.chain(*VARIANTS.values()):
        assert "\nbreath" not in files[name].read_text(), f"{name} is not reproducible"
    with Synthesizer() as synthesizer:
        for accent in (*ACCENTS["English"], *ACCENTS["Chinese"]):
            text = "老师看书" if accent == "cmn" else "three red dogs run"
            samples = synthesizer.synthesise(text, Voice(accent, 150, 50, 50))
            assert samples.dtype == np.float32 and 8000 < len(samples) < 48000
            assert np.sqrt(np.mean(samples**2)) > 0.01 and np.abs(samples).max() <= 1.1
        with pytest.raises(ValueError, match="no voice 'nobody'"):
            synthesizer.synthesise("hello", Voice("nobody", 150, 50, 50))


def test_synthesizer_output_does_not_depend_on_earlier_texts():
    pytest.importorskip("espeakng_loader")
    from arkasr.corpora.synthetic.voices import Synthesizer, Voice

    def synthesised() -> np.ndarray:
        with Synthesizer() as synthesizer:
            return synthesizer.synthesise("seven red dogs", Voice("en-us+klatt2", 150, 50, 50))

    first = synthesised()
    with Synthesizer() as other:
        other.synthesise("five purple camels sing", Voice("en-us", 150, 50, 50))
        second = synthesised()
    np.testing.assert_array_equal(first, second)
