"""ONNX files of Ark-ASR, for engines without PyTorch.

- `graphs`: what the files compute, as torch modules.
- `write`: the files, written by torch.onnx.
- `check`: compares the files in onnxruntime with PyTorch.
- `texts`: the program and the tables of the folder's README.
- `folder`: `arkasr export --onnx --model`, for a folder or Hub id without a run.

May import `model`, `data`, `export`, `utils`, `interfaces` and `errors`.
"""
