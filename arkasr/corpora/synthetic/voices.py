"""Speech synthesis with espeak-ng through ctypes. The wheel `espeakng-loader` holds its library and voices."""

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


class SilentError(RuntimeError):
    """A text gives no sound."""


@dataclass(frozen=True)
class Voice:
    """Parameters of espeak-ng.

    Attributes:
        name: Voice and variant, for example `en-us+m1`.
        rate: Words per minute.
        pitch: Pitch, from 0 to 99.
        range: Pitch range, from 0 to 99.
    """

    name: str
    rate: int
    pitch: int
    range: int


def _loader() -> Any:
    try:
        import espeakng_loader
    except ImportError:
        raise UserError(
            "espeakng-loader is not installed; the corpora at mini scale are synthesised with espeak-ng; "
            "run: pip install 'arkasr[mini]' (or name an existing corpus with --corpus_dir)"
        ) from None
    return espeakng_loader


def _fresh_library(path: str) -> ctypes.CDLL:
    """Load a private copy of the library.

    espeak-ng keeps oscillator and flutter state in static variables that are never reset, so the samples of a
    sentence depend on earlier sentences. A new copy always starts from the same state (about 3 ms).
    """
    with tempfile.TemporaryDirectory() as folder:
        return ctypes.CDLL(shutil.copy(path, folder))


class Synthesizer:
    """A new instance of espeak-ng. The same sequence of calls gives the same samples in every process.

    Raises:
        UserError: If espeakng-loader is not installed.
    """

    def __init__(self) -> None:
        loader = _loader()
        self._library = _fresh_library(loader.get_library_path())
        ctypes.CDLL(None).srand(1)  # the klatt voices use the C library's random generator
        rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, loader.get_data_path().encode(), _DONT_EXIT)
        if rate != _ESPEAK_RATE:
            raise RuntimeError(f"espeak_Initialize returned {rate}, expected {_ESPEAK_RATE} Hz")
        self._chunks: list[np.ndarray] = []
        self._callback = _CALLBACK(self._collect)  # a reference, because the library keeps only a pointer
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_Synth.argtypes = [
            ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint,
            ctypes.c_void_p, ctypes.c_void_p,
        ]  # fmt: skip

    def _collect(self, samples: Any, count: int, events: Any) -> int:
        if count > 0 and samples:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def synthesise(self, text: str, voice: Voice) -> np.ndarray:
        """Synthesise a text.

        Args:
            text: The text, English or Chinese.
            voice: The voice.

        Returns:
            float32 [num_samples] at 16 kHz, about -1 to 1, without silence at both ends.

        Raises:
            ValueError: If espeak-ng has no such voice.
            RuntimeError: If espeak-ng fails.
            SilentError: If the text gives no sound, such as letters that the voice does not know.
        """
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice.name!r}")
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._chunks.clear()
        data = text.encode() + b"\0"
        if self._library.espeak_Synth(data, len(data), 0, 0, 0, _UTF8, None, None) != 0:
            raise RuntimeError(f"espeak-ng failed on {text!r} with voice {voice.name!r}")
        samples = np.concatenate([np.zeros(0, np.int16), *self._chunks])
        if not samples.any():
            raise SilentError(f"espeak-ng gives no sound for {text!r} with voice {voice.name!r}")
        return _to_16k(_trim(samples.astype(np.float32) / 32768))

    def close(self) -> None:
        """Free the memory of the library."""
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
