"""The teachers that run in the training process: `qwen3_asr`, `glmasr`, `arkasr` and `whisper`.

May import the public interface (`import arkasr`) only.
"""
