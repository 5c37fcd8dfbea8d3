"""Routes of the page: its files, and what it has to know of the service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from arkasr.languages import LANGUAGES, find_language

TYPES = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg+xml"}
HEADERS = {
    # No inline code, nothing from elsewhere. The audio that plays is a file of the reader, under a blob: address.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",  # text cannot become HTML
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class PageSettings:
    """What the page has to know of the service. Everybody who opens the page can read it.

    Attributes:
        model: Name of the model, as requests name it.
        language: English name of the language that is chosen at first.
        languages: English names of the languages that can be chosen.
        trained: Those of them that the model was trained on, which are offered first. Empty if that is not known.
        word_times: Whether the service returns times of words.
        max_bytes: Largest file in bytes, or None if there is no limit.
        max_seconds: Longest audio in seconds, or None if there is no limit.
    """

    model: str
    language: str = "English"
    languages: Sequence[str] = tuple(LANGUAGES)
    trained: Sequence[str] = ()
    word_times: bool = False
    max_bytes: int | None = None
    max_seconds: float | None = None

    def as_json(self) -> dict[str, object]:
        """Return the settings as the page reads them, with a code and a name per language."""
        languages = [{"code": find_language(name).code, "name": name} for name in self.languages]
        trained = [find_language(name).code for name in self.trained]
        return {
            **asdict(self),
            "language": find_language(self.language).code,
            "languages": languages,
            "trained": trained,
        }


def page_routes(settings: PageSettings) -> list[Route]:
    """Return the routes `/`, `/page/settings.json` and one per file of the page. None of them asks for a key.

    Args:
        settings: What the page has to know of the service.

    Returns:
        Routes for an application of Starlette or FastAPI.
    """
    known = JSONResponse(settings.as_json(), headers=HEADERS)
    files = [each for each in resources.files(__package__).joinpath("static").iterdir() if each.is_file()]
    return [_route("/page/settings.json", known), *(_file_route(each) for each in files)]


def _file_route(file: Traversable) -> Route:
    name = file.name
    path = "/" if name == "index.html" else f"/page/{name}"
    return _route(path, Response(file.read_bytes(), headers=HEADERS, media_type=TYPES[name.rpartition(".")[2]]))


def _route(path: str, response: Response) -> Route:
    async def endpoint(_request: Request) -> Response:
        return response

    return Route(path, endpoint)
