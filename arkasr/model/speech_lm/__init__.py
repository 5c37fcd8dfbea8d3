"""`SpeechLM`: one interface for training, sampling and scoring every supported recogniser.

It may import `model.arkasr` and the modules of `model` that do not know SpeechLM.
"""
