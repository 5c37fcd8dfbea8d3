"""The markers of transformers' own tests."""

from __future__ import annotations

MARKERS = ("accelerate_tests", "flash_attn_test", "flash_attn_3_test", "flash_attn_4_test", "all_flash_attn_test")
MARKERS += ("bitsandbytes", "generate", "order", "torch_compile_test")


def pytest_configure(config):
    for name in MARKERS:
        config.addinivalue_line("markers", f"{name}: of transformers' own tests")
