"""The Ark-ASR student in Hugging Face's file layout, with the published checkpoint's key names.

May import the modules of `model` that know no SpeechLM.
"""
