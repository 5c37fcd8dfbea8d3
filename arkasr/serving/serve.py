"""`arkasr serve`."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from arkasr.errors import UserError
from arkasr.evaluation.transcribers import quiet_transformers
from arkasr.serving.limits import Limits
from arkasr.transcription.recognizer import Recognizer
from arkasr.transcription.settings import Settings
from arkasr.transcription.windows import cut
from arkasr.transcription.word_times import aligner_for
from arkasr.utils.console import log

PACKAGES = ("prometheus_client", "python_multipart", "starlette", "uvicorn")  # the extra serve
INSTALL = "run pip install 'arkasr[serve]'"
PLAIN_NAMES = ("final", "export", "latest", "best")  # of folders, which do not tell one model from another


@dataclass(frozen=True)
class Address:
    """Where the service listens, and who may use it.

    Attributes:
        host: Address or name of this machine. 127.0.0.1 is reached from this machine only.
        port: Port. 0 picks a free one.
        api_key_file: File with the key that clients must send, or an empty string.
        name: Id of the model in requests. Default: from its folder.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key_file: str = ""
    name: str = ""


def serve(load: Callable[[], Recognizer], settings: Settings, limits: Limits, address: Address) -> None:
    """Serve a model until a signal ends the service.

    Args:
        load: Loads the model. It is called when all else is checked, because it takes longest.
        settings: Settings of requests that do not ask for others.
        limits: What clients may ask for.
        address: Where the service listens.

    Raises:
        UserError: A package is not installed, the key cannot be read, the address cannot be used, or `load` raises it.
    """
    _check_packages()
    from arkasr.serving.app import make_app
    from arkasr.serving.keys import read_key
    from arkasr.serving.languages import check_language, languages_of
    from arkasr.serving.parameters import Served
    from arkasr.serving.server import address_of, bind, run
    from arkasr.serving.service import Service

    key = read_key(address.api_key_file)
    cut([], settings)  # checks the settings before a client does
    listening = bind(address.host, address.port)
    quiet_transformers()
    recognizer = load()
    recognizer.check_hotwords(settings.hotwords, settings.hotword_weight)
    name = address.name or model_id(recognizer.name)
    settings = replace(settings, window_seconds=recognizer.window_seconds(settings.window_seconds))
    languages = languages_of(recognizer)
    check_language(settings.language, name, languages)
    served = Served(name, settings, can_time_words(recognizer, settings), languages)
    service = Service(recognizer, served, limits)
    if not key and not _is_loopback(listening.getsockname()[0]):
        log("warning: anybody who reaches this address can use the service; set a key with --api_key_file")
    log(f"serving {name} at {address_of(listening)} (page: /, clients: /v1); press Ctrl-C to end")
    run(make_app(service, key), service, listening)


def _check_packages() -> None:
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        names = ", ".join(missing)
        raise UserError(f"arkasr serve needs packages that are not installed ({names}); {INSTALL}")


def model_id(name: str) -> str:
    """Return the id of a model in requests.

    Args:
        name: Folder or Hub id of the model.

    Returns:
        A Hub id as it is. Of a folder, its last part that tells it from others, such as base_opd for
        exp/mini/base_opd/final.
    """
    path = Path(name.partition(":")[2] or name)
    if not path.is_dir():
        return name
    parts = [part for part in path.resolve().parts[1:] if part not in PLAIN_NAMES]
    return parts[-1] if parts else name


def can_time_words(recognizer: Recognizer, settings: Settings) -> bool:
    """Return whether the times of words can be found.

    Args:
        recognizer: The model.
        settings: `aligner` is used.

    Returns:
        Whether the model or the aligner has a CTC head.

    Raises:
        UserError: An aligner is named, but cannot be used.
    """
    try:
        return aligner_for(recognizer, replace(settings, word_times=True)) is not None
    except UserError:
        if settings.aligner:
            raise
        return False


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback
