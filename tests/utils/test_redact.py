"""Secrets in addresses, options and commands."""

from __future__ import annotations

import pytest

from arkasr.utils.redact import secrets_in_addresses, values_without_secrets, without_secrets

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"https://user:{SECRET}@host:8000", "https://***@host:8000"),
        (f"http://user:p@{SECRET}@host/v1", "http://***@host/v1"),
        (f"http://{SECRET}@host", "http://***@host"),
        (f"teacher.options.url=https://user:{SECRET}@host", "teacher.options.url=https://***@host"),
        (f"https://host/?api_key={SECRET}&x=1", "https://host/?api_key=***&x=1"),
        (f"https://host/?x=1&X-Amz-Security-Token={SECRET}", "https://host/?x=1&X-Amz-Security-Token=***"),
        (f"https://host/?token={SECRET}", "https://host/?token=***"),
        (f"teacher.options.api_key={SECRET}", "teacher.options.api_key=***"),
        (f"teacher.options.api_key=a b {SECRET}", "teacher.options.api_key=***"),
    ],
)
def test_without_secrets_hides_each_kind_of_secret(text: str, clean: str) -> None:
    assert without_secrets(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "https://host:8000/path?model=qwen",
        "teacher.options.api_key_env=VLLM_KEY",
        "mail user@host",
        "teacher.options.stop_token=<|im_end|>",
        "s3://bucket/folder@2024/file",
        "optim.lr=1e-3",
        "",
    ],
)
def test_without_secrets_keeps_other_texts(text: str) -> None:
    assert without_secrets(text) == text


def test_values_without_secrets_hides_by_name_and_in_addresses() -> None:
    options = {"api_key": SECRET, "stop_token": "<s>", "urls": [f"http://u:{SECRET}@h"], "top_k": 3, "password": ""}
    hidden = {"api_key": "***", "stop_token": "<s>", "urls": ["http://***@h"], "top_k": 3, "password": ""}
    assert values_without_secrets({"teacher": {"options": options}}) == {"teacher": {"options": hidden}}


def test_secrets_in_addresses_names_the_key() -> None:
    config = {"teacher": {"options": {"url": f"http://u:{SECRET}@h", "api_key_env": "KEY"}}, "data": {"train": "a.gz"}}
    assert list(secrets_in_addresses(config)) == [("teacher.options.url", "http://***@h")]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("teacher.options={url: x, api_key: hunter2}", "teacher.options={url: x, api_key: ***}"),
        ("teacher.options={'api_key':'hunter2', url: x}", "teacher.options={'api_key':***, url: x}"),
        ('{"password": "hunter2"}', '{"password": ***}'),
        ("{api_key_env: NAME, keyword: x}", "{api_key_env: NAME, keyword: x}"),
    ],
)
def test_values_in_mappings_are_hidden(text, clean):
    assert without_secrets(text) == clean
