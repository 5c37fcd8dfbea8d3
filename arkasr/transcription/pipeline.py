"""`transformers.pipeline("automatic-speech-recognition")` for the models whose prompts hold audio.

transformers' own class feeds features to the model without a prompt. `arkasr.model` puts the class of this module in
its place, by name, so that nothing here is imported until a pipeline is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutomaticSpeechRecognitionPipeline, GenerationConfig
from transformers.utils import logging

from arkasr.errors import UserError
from arkasr.interfaces import Transcript
from arkasr.languages import known_language
from arkasr.model.generation import is_looping
from arkasr.model.speech_lm.auto import CLASSES, wrap
from arkasr.transcription.assembly import Assembly, whole_text
from arkasr.transcription.pipeline_audio import as_mono, windows_of
from arkasr.transcription.pipeline_limits import sets_limit, with_caps
from arkasr.transcription.recognizer import Recognizer
from arkasr.transcription.settings import Settings
from arkasr.transcription.stream import Window
from arkasr.transcription.word_times import aligner_for

TIMES = (None, False, True, "word")
OWN = {"is_last", "window", "ids"}  # keys of the records that pass from step to step
logger = logging.get_logger("transformers.arkasr")  # obeys the verbosity of transformers


class SpeechPipeline(AutomaticSpeechRecognitionPipeline):
    """Speech recognition with Ark-ASR, Qwen3-ASR and GLM-ASR. For other models the class of transformers is built.

    Audio longer than `chunk_length_s` is cut into windows and its texts are joined as in `arkasr transcribe`.

    Args:
        model: The model.
        feature_extractor: Kept for `save_pretrained`. The features are those of `SpeechLM`.
        tokenizer: The model's tokenizer.
        **kwargs: Options of transformers' class, and of a call (see `_sanitize_parameters`).
    """

    _default_generation_config = GenerationConfig(do_sample=False)

    def __new__(cls, model: Any, *args: Any, **kwargs: Any) -> Any:
        """Choose the class by the type of the model."""
        if model.config.model_type in CLASSES:
            return super().__new__(cls)
        return AutomaticSpeechRecognitionPipeline(model, *args, **kwargs)

    def __init__(self, model: Any, feature_extractor: Any = None, tokenizer: Any = None, **kwargs: Any):
        if tokenizer is None:
            raise UserError("pipeline: the model needs its tokenizer; pass tokenizer=, or the model as a folder")
        self._lm = wrap(model, tokenizer).eval()
        name = str(getattr(model, "name_or_path", "") or model.config.model_type)
        self._recognizer = Recognizer(name, self._lm)
        super().__init__(model, feature_extractor, tokenizer, **kwargs)
        self._lm.blocked = self._lm.blocked.to(self.device)
        ends = {"eos_token_id": self._lm.stop_ids, "suppress_tokens": self._lm.suppressed_ids}
        self._generation_defaults |= ends

    def _sanitize_parameters(  # type: ignore[override]  # the options that these models have
        self,
        chunk_length_s: float | None = None,
        stride_length_s: float | tuple[float, float] | None = None,
        return_timestamps: bool | str | None = None,
        language: str | None = None,
        ignore_warning: bool | None = None,
        **generate_kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Sort the options of a call.

        Args:
            chunk_length_s: Longest stretch of audio in seconds that the model reads at once. 0 is all. None: what suits
                the model (see `Recognizer.window_seconds`).
            stride_length_s: Seconds at the left and right of a window that its neighbours share. By default windows
                are cut in pauses.
            return_timestamps: True: times of the windows. "word": times of words.
            language: Name or code of the language. Default: English.
            ignore_warning: Accepted as in transformers' class.
            **generate_kwargs: Options of `generate`, also as a dictionary of this name. If they set no limit of tokens,
                it is that of `Recognizer.token_caps`.

        Returns:
            The options of the three steps.

        Raises:
            UserError: An option has a value that is not allowed, or the model has no CTC head for times of words.
        """
        if return_timestamps not in TIMES:
            raise UserError(f"return_timestamps {return_timestamps!r}: must be False, True or 'word'")
        known = None if language is None else known_language(language)
        if language is not None and known is None:
            raise UserError(f"language {language!r}: unknown; give an English name or a code, such as Chinese or zh")
        if return_timestamps == "word":
            self._require_aligner()
        generate_kwargs |= generate_kwargs.pop("generate_kwargs", None) or {}
        if getattr(self, "assistant_model", None) is not None:
            generate_kwargs["assistant_model"] = self.assistant_model
        before = {"chunk_length_s": chunk_length_s, "stride_length_s": stride_length_s}
        spoken = {} if known is None else {"language": known.name}
        after = {} if return_timestamps is None else {"return_timestamps": return_timestamps}
        if generate_kwargs:
            after["own_decoding"] = True
        return {k: v for k, v in before.items() if v is not None}, generate_kwargs | spoken, after | spoken

    def _require_aligner(self) -> None:
        """Check that the model can align words, before it runs."""
        try:
            aligner_for(self._recognizer, Settings(word_times=True))
        except UserError as error:
            cause = str(error).removeprefix("word_times: ").partition(";")[0]
            raise UserError(f"return_timestamps 'word': {cause}; use True for the times of windows") from error

    def preprocess(  # type: ignore[override]
        self,
        inputs: Any,
        chunk_length_s: float | None = None,
        stride_length_s: float | tuple[float, float] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Read one input and cut it into windows.

        Args:
            inputs: A file, an address, bytes, an array, or a dictionary (see `as_mono`).
            chunk_length_s: See `_sanitize_parameters`.
            stride_length_s: See `_sanitize_parameters`.

        Yields:
            One record per window. Audio without speech gives one record without a window.

        Raises:
            UserError: The input cannot be read, or the windows are invalid.
        """
        waveform, extra = as_mono(inputs)
        chunk_length_s = self._recognizer.window_seconds() if chunk_length_s is None else chunk_length_s
        windows: list[Window | None] = [*windows_of(waveform, chunk_length_s, stride_length_s, logger.warning)]
        windows = windows or [None]
        for i, window in enumerate(windows):
            yield {"is_last": i == len(windows) - 1, "window": window, **extra}

    def _forward(  # type: ignore[override]
        self, model_inputs: dict[str, Any], language: str = Settings.language, **generate_kwargs: Any
    ) -> dict[str, Any]:
        """Generate the ids of one window or of a batch of windows."""
        batch = model_inputs["window"]
        windows = batch if isinstance(batch, list) else [batch]
        waveforms = [window.waveform for window in windows if window is not None]
        rows = iter(self._generate(waveforms, language, generate_kwargs) if waveforms else [])
        ids = [[] if window is None else next(rows) for window in windows]
        return model_inputs | {"ids": ids if isinstance(batch, list) else ids[0]}

    def _generate(self, waveforms: Sequence[Tensor], language: str, options: dict[str, Any]) -> list[list[int]]:
        lm = self._lm
        prompts = lm.embed_prompts(lm.encode_audio(waveforms), [language] * len(waveforms))
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        embeds = pad_sequence([prompt.flip(0) for prompt in prompts], batch_first=True).flip(1)  # on the left
        mask = torch.arange(embeds.shape[1]) >= embeds.shape[1] - lengths[:, None]
        generate: Any = self.model.generate
        mask = mask.long().to(embeds.device)
        options, caps = self._limited(options, self._recognizer.token_caps(waveforms))
        found = generate(inputs_embeds=embeds, attention_mask=mask, **options)
        rows = (found if isinstance(found, Tensor) else found.sequences).tolist()
        if len(rows) != len(waveforms):
            raise UserError(f"num_return_sequences: {len(rows) // len(waveforms)} per input; only 1 is supported")
        return [self._until_stop(row[:cap]) for row, cap in zip(rows, caps)]

    def _limited(self, options: dict[str, Any], caps: Sequence[int]) -> tuple[dict[str, Any], Sequence[int | None]]:
        """Return all options of `generate`, and the limit of each text. A limit that the caller sets replaces ours."""
        kept = {} if "generation_config" in options else self._generate_kwargs
        if sets_limit(kept | options):
            return self._prepare_generate_kwargs(options), [None] * len(caps)
        return self._prepare_generate_kwargs(with_caps(options, caps), max_new_tokens=max(caps)), caps

    def _until_stop(self, ids: list[int]) -> list[int]:
        ends = [i for i, token in enumerate(ids) if token in self._lm.stop_ids]
        return ids[: ends[0] + 1] if ends else ids

    def postprocess(  # type: ignore[override]
        self,
        model_outputs: Sequence[Mapping[str, Any]],
        return_timestamps: bool | str = False,
        language: str = Settings.language,
        own_decoding: bool = False,
    ) -> dict[str, Any]:
        """Join the texts of the windows of one input.

        Args:
            model_outputs: Records with the ids of all windows.
            return_timestamps: See `_sanitize_parameters`.
            language: English name of the language.
            own_decoding: Whether the call set options of `generate`. If it or the constructor did, texts are kept,
                with a warning if one loops, is cut or is too long.

        Returns:
            `text`, and `chunks` with `text` and `timestamp` if asked for, and the keys that the input had beside its
            audio.
        """
        own_decoding = own_decoding or bool(self._generate_kwargs)
        settings = Settings(language=language, word_times=return_timestamps == "word")
        assembly = Assembly(self._recognizer, settings, language, keep=own_decoding)
        for output in model_outputs:
            if output["window"] is not None:
                assembly.add(output["window"], self._transcript(output["ids"]))
        segments, notes = assembly.finish()
        for note in notes:
            logger.warning(f"automatic-speech-recognition: {note}")
        result: dict[str, Any] = {"text": whole_text(segments, language)}
        if return_timestamps:
            timed: Any = segments if return_timestamps is True else [word for each in segments for word in each.words]
            result["chunks"] = [{"text": each.text, "timestamp": (each.start, each.end)} for each in timed]
        for output in model_outputs:
            for key in output.keys() - OWN:
                result.setdefault(key, []).append(output[key])
        return result

    def _transcript(self, ids: list[int]) -> Transcript:
        stops = self._lm.stop_ids
        return Transcript(self._lm.text(ids), bool(ids) and ids[-1] in stops, is_looping(ids, stops), len(ids))
