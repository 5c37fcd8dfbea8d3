"""The parts of a model card that depend on the type of the model."""

from __future__ import annotations

TITLES = {"arkasr": "Ark-ASR", "qwen3_asr": "Qwen3-ASR", "glmasr": "GLM-ASR"}
METHODS = {
    "arkasr": """\
An encoder with rotary positions, an adapter that merges frames, and a Qwen2 decoder that generates the transcript from
the audio: the architecture of Ark-ASR ([arXiv:2605.28139](https://arxiv.org/abs/2605.28139)), trained with `arkasr`.
""",
    "qwen3_asr": """\
A speech recogniser of type `qwen3_asr` in transformers: the architecture of Qwen3-ASR, trained with `arkasr`. Its
prompt names the language of the clip.
""",
    "glmasr": """\
A speech recogniser of type `glmasr` in transformers: the architecture of GLM-ASR, trained with `arkasr`.
""",
}
_ARKASR = """\
You need the Python package `arkasr` (`pip install -e .` in a clone of its repository). No remote code is run.

```python
import soundfile
from arkasr import ArkasrForConditionalGeneration, ArkasrProcessor  # registers Ark-ASR with transformers
from transformers import AutoModelForCausalLM, AutoProcessor

folder = "."  # this repository: a local folder or its id on the Hub
processor = AutoProcessor.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)

samples, rate = soundfile.read("clip.wav", dtype="float32")  # one channel at 16 kHz
inputs = processor(samples, sampling_rate=rate)
ids = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
print(processor.batch_decode(ids, skip_special_tokens=True)[0].strip())
```

`generation_config.json` sets greedy decoding, the stop token, and the ids that are never generated."""
_OTHERS = """\
You need the Python package `transformers`. No remote code is run.

```python
import soundfile
from transformers import AutoModelForMultimodalLM, AutoProcessor

folder = "."  # this repository: a local folder or its id on the Hub
processor = AutoProcessor.from_pretrained(folder)
model = AutoModelForMultimodalLM.from_pretrained(folder)

samples, rate = soundfile.read("clip.wav", dtype="float32")  # one channel at 16 kHz
PROMPT
inputs = processor(text=prompt, audio=samples)
ids = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
print(processor.batch_decode(ids, skip_special_tokens=True)[0].strip())
```

`generation_config.json` sets greedy decoding, the stop tokens, and the ids that are never generated."""
ENGINES = """\
vLLM and SGLang read this layout. Start one of them in this folder, then send a file:

```sh
vllm serve . --served-model-name asr --port 8000
python -m sglang.launch_server --model-path . --served-model-name asr --port 8000
curl http://localhost:8000/v1/audio/transcriptions -F model=asr -F file=@clip.wav
```

`arkasr.load_speech_lm(".")` and `model.path` of a configuration read it too."""
_PROMPTS = {
    "qwen3_asr": """\
prompt = (
    "<|im_start|>system\\n<|im_end|>\\n<|im_start|>user\\n<|audio_start|><|audio_pad|><|audio_end|><|im_end|>\\n"
    "<|im_start|>assistant\\nlanguage LANGUAGE<asr_text>"
)""",
    "glmasr": """\
prompt = (
    "<|user|>\\n<|begin_of_audio|><|pad|><|end_of_audio|><|user|>\\n"
    "Please transcribe this audio into text<|assistant|>\\n"
)""",
}


def usage(model_type: str, language: str) -> str:
    """Return how a model is used with transformers.

    Args:
        model_type: Type of the model, a key of `TITLES`.
        language: English name of the language of its corpus, or empty.

    Returns:
        Markdown with a program.
    """
    if model_type == "arkasr":
        return _ARKASR
    return _OTHERS.replace("PROMPT", _PROMPTS[model_type].replace("LANGUAGE", language or "English"))
