"""`SpeechLM`: one interface for training, sampling and scoring every supported recogniser.

It may import `model.arkasr`, `interfaces`, `errors` and, from `model`, the modules `log_mel`, `tokenization` and
`weight_digests`.
"""
