"""The published prompt of Ark-ASR: one place for training, decoding and the processor."""

from __future__ import annotations

from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

from arkasr.errors import UserError

INSTRUCTION = "Please transcribe this audio."
AUDIO = "<|audio|>"  # stands once in a prompt's text and as often as the clip has audio tokens in its ids
STOP = "<|im_end|>"
_USER, _ASSISTANT, _BEGIN, _END = "<|user|>", "<|assistant|>", "<|begin_of_audio|>", "<|end_of_audio|>"
TOKENS = (_USER, _BEGIN, AUDIO, _END, _ASSISTANT, STOP)

# The same prompt for conversations, in the form that transformers keeps in chat_template.jinja. The file of that name
# in the published repository writes newlines after the roles, which the model was not trained on.
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
    """Return what stands before and after the audio tokens; a transcript follows, then STOP. There are no newlines."""
    return _USER + _BEGIN, f"{_END}{instruction}{_ASSISTANT}"


def require_tokens(tokenizer: PreTrainedTokenizerBase, needed: Iterable[str]) -> None:
    """Raise UserError where the tokenizer lacks a token of a prompt."""
    missing = sorted(set(needed) - tokenizer.get_vocab().keys())
    if missing:
        raise UserError(f"{tokenizer.name_or_path}: the tokenizer lacks {', '.join(missing)}, part of the prompt")
