"""The Ark-ASR student under Hugging Face's file names, with the key names of the published checkpoint.

It may import the modules of `model` that do not know SpeechLM.
"""
