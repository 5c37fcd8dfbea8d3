"""`SpeechLM`: one interface for training, sampling and scoring every supported recogniser.

It may import `model.arkasr`, `data`, `interfaces`, `utils`, `errors` and, from `model`, the modules `log_mel`,
`packing`, `tokenization` and `weight_digests`.
"""
