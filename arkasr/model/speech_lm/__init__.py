"""`SpeechLM`: one interface for training, sampling and scoring every supported recogniser.

May import `model.arkasr` and the modules of `model` that know no SpeechLM.
"""
