"""Configurations of tiny models for a copied recipe.

In `OVERLAY`, replace BASE_STEPS by the steps of Base. `FINETUNE` lies over egs/conf/finetune.yaml and starts from the
models of the fixture `trained`.
"""

OVERLAY = """
base: ../../conf/mini.yaml
model:
  sizes:
    audio: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2}
    text: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1}
tokenizer: {vocab_size: 60}
train: {threads: 1, log_every: 1, eval_clips: 2, keep: 1}
rollout: {max_new_tokens: 8}
decode: {max_new_tokens: 8}
teacher: {options: {max_new_tokens: 8}}
runs:
  teacher:
    model:
      sizes:
        audio: {d_model: 16, encoder_ffn_dim: 32, encoder_layers: 1, encoder_attention_heads: 2}
        text: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2, head_dim: 8}
    tokenizer: {vocab_size: 300}
    optim: {lr: 2e-2, warmup_steps: 4}
    train: {steps: 20, eval_every: 0}
  base: {train: {steps: BASE_STEPS, eval_every: 0, save_every: 10}}
  base_steps: {train: {steps: 3, eval_every: 0}}
  base_opd: {train: {steps: 3, eval_every: 3}}
  base_td: {train: {steps: 3, eval_every: 0}}
  base_td_opd: {train: {steps: 3, eval_every: 0}}
"""

FINETUNE = """
base: {conf}
model: {{path: "{trained}/base/final", lora: {{rank: 3}}}}
data: {{max_seconds: 3, max_cuts: 3, num_buckets: 2, num_workers: 0}}
train: {{steps: 2, accumulate: 1, eval_every: 2, eval_clips: 2, threads: 1}}
fsdp: {{compute_dtype: float32}}
rollout: {{max_new_tokens: 6}}
decode: {{max_new_tokens: 6, max_seconds: 8}}
distill: {{top_k: 4}}
mapper: {{name: shared_strings}}
teacher: {{options: {{path: "{trained}/teacher/final", dtype: float32, max_new_tokens: 6}}}}
"""
