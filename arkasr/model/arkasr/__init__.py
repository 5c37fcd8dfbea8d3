"""The Ark-ASR student under Hugging Face's file names, with the key names of the published checkpoint.

It may import `config`, `interfaces`, `utils`, `errors` and, from `model`, the modules `log_mel`, `packing`, `reading`,
`size_limits`, `tokenization`, `weight_checks`, `weight_digests` and `weight_files`.
"""
