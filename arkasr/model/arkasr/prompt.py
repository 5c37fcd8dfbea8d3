"""The prompt of Ark-ASR as published, shared by training, decoding and the processor."""

from __future__ import annotations

from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

from arkasr.errors import UserError

INSTRUCTION = "Please transcribe this audio."
AUDIO = "<|audio|>"  # once in the text of the prompt, and once per audio token in its ids
STOP = "<|im_end|>"
_USER, _ASSISTANT, _BEGIN, _END = "<|user|>", "<|assistant|>", "<|begin_of_audio|>", "<|end_of_audio|>"
TOKENS = (_USER, _BEGIN, AUDIO, _END, _ASSISTANT, STOP)

# The same prompt for conversations, as transformers stores it in chat_template.jinja. The template of the published
# repository writes newlines after the roles, which the model was not trained with.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message.role + '|>' -}}"
    "{%- if message.content is string -%}{{- message.content -}}{%- else -%}"
    "{%- for part in message.content -%}"
    f"{{{{- '{_BEGIN}{AUDIO}{_END}' if part.type == 'audio' else part.text -}}}}"
    "{%- endfor -%}{%- endif -%}"
    f"{{{{- '{STOP}' if message.role == 'assistant' -}}}}"
    "{%- endfor -%}"
    f"{{{{- '{_ASSISTANT}' if add_generation_prompt -}}}}"
)


def prompt_parts(instruction: str = INSTRUCTION) -> tuple[str, str]:
    """Return the text before and after the audio tokens. A transcript and STOP follow. There are no newlines.

    Args:
        instruction: Text between the audio and the transcript.

    Returns:
        `<|user|><|begin_of_audio|>` and `<|end_of_audio|>instruction<|assistant|>`.
    """
    return _USER + _BEGIN, f"{_END}{instruction}{_ASSISTANT}"


def require_tokens(tokenizer: PreTrainedTokenizerBase, needed: Iterable[str]) -> None:
    """Check that a tokenizer has all special tokens of a prompt.

    Args:
        tokenizer: The tokenizer.
        needed: Special tokens, such as "<|audio|>".

    Raises:
        UserError: The tokenizer lacks one of them.
    """
    missing = sorted(set(needed) - tokenizer.get_vocab().keys())
    if missing:
        raise UserError(
            f"{tokenizer.name_or_path}: the tokenizer lacks {', '.join(missing)} of the prompt; use the tokenizer of "
            "this model (a tokenizer trained for model.type=arkasr needs tokenizer.kind=sentencepiece)"
        )
