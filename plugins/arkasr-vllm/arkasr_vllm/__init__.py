"""Teacher `qwen3_asr_http` for arkasr: a vLLM server on another machine scores the transcripts."""
