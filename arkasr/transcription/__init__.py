"""Transcription of any audio: files of any length in, texts with times out.

May import `evaluation` and every subpackage below it.
"""
