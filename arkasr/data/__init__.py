"""From Lhotse cuts to batches of waveforms: manifests, bucketed sampling, audio loading.

May import `config`, `utils`, `interfaces`, `languages` and `errors`.
"""
