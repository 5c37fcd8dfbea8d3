"""Speech from espeak-ng, whose library and voices come with the wheel `espeakng-loader`, through ctypes."""

from __future__ import annotations

import ctypes
import shutil
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from arkasr.errors import UserError

_ESPEAK_RATE = 22050
_SYNCHRONOUS, _DONT_EXIT, _UTF8 = 2, 0x8000, 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Voice:
    """How a speaker sounds: an espeak-ng voice with its `+variant`, words a minute, pitch and its range (0-99)."""

    name: str
    rate: int
    pitch: int
    range: int


def _loader() -> Any:
    try:
        import espeakng_loader
    except ImportError:
        raise UserError(
            "the miniature corpora are spoken by espeak-ng, and espeakng-loader is not installed; "
            "run: pip install 'arkasr[mini]' (or give an existing corpus with --corpus_dir)"
        ) from None
    return espeakng_loader


def _fresh_library(path: str) -> ctypes.CDLL:
    """Load a private copy of the library.

    espeak-ng keeps oscillator and flutter state in static variables that nothing resets, so the same sentence
    differs with what was spoken before. A new copy starts from the same state each time (about 3 ms).
    """
    with tempfile.TemporaryDirectory() as folder:
        return ctypes.CDLL(shutil.copy(path, folder))


class Synthesizer:
    """A freshly started espeak-ng: the same sequence of `speak` calls gives the same samples in any process."""

    def __init__(self) -> None:
        loader = _loader()
        self._library = _fresh_library(loader.get_library_path())
        ctypes.CDLL(None).srand(1)  # the klatt voices draw their breath from the C library's generator
        rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, loader.get_data_path().encode(), _DONT_EXIT)
        if rate != _ESPEAK_RATE:
            raise RuntimeError(f"espeak_Initialize returned {rate}, expected {_ESPEAK_RATE} Hz")
        self._chunks: list[np.ndarray] = []
        self._callback = _CALLBACK(self._collect)  # kept: the library holds only a bare pointer
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_Synth.argtypes = [
            ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint,
            ctypes.c_void_p, ctypes.c_void_p,
        ]  # fmt: skip

    def _collect(self, samples: Any, count: int, events: Any) -> int:
        if count > 0 and samples:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def speak(self, text: str, voice: Voice) -> np.ndarray:
        """Say the text. Returns float32 [num_samples] at 16 kHz in [-1, 1], silence at both ends cut off."""
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice.name!r}")
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._chunks.clear()
        data = text.encode() + b"\0"
        if self._library.espeak_Synth(data, len(data), 0, 0, 0, _UTF8, None, None) != 0 or not self._chunks:
            raise RuntimeError(f"espeak-ng said nothing for {text!r} with voice {voice.name!r}")
        return _to_16k(_trim(np.concatenate(self._chunks).astype(np.float32) / 32768))

    def close(self) -> None:
        """Free the library's memory."""
        self._library.espeak_Terminate()

    def __enter__(self) -> Synthesizer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _trim(samples: np.ndarray) -> np.ndarray:
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1]


def _to_16k(samples: np.ndarray) -> np.ndarray:
    from scipy.signal import resample_poly

    return resample_poly(samples, 320, 441).astype(np.float32)
