"""Serial numbers of Ogg files."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from arkasr.corpora.synthetic.ogg import set_serial


def test_set_serial_keeps_the_audio_and_refuses_other_formats(tmp_path):
    samples = np.random.default_rng(0).standard_normal(32000).astype(np.float32) * 0.1
    files = [tmp_path / "a.opus", tmp_path / "b.opus"]
    for path in files:
        soundfile.write(path, samples, 16000, format="OGG", subtype="OPUS")
    before = soundfile.read(files[0])[0]
    for path in files:
        set_serial(path, 7)
    assert files[0].read_bytes() == files[1].read_bytes()
    np.testing.assert_array_equal(soundfile.read(files[0])[0], before)
    (tmp_path / "c.txt").write_text("no pages")
    with pytest.raises(ValueError, match="no Ogg page at byte 0"):
        set_serial(tmp_path / "c.txt", 7)
