"""The service: transcription over HTTP, with its page.

May import `transcription` and every subpackage below it.
"""
