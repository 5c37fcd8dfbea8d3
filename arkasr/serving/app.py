"""The ASGI application: all paths of the service.

Starlette is enough: the service has one form, whose limits have to hold while its bytes arrive, and answers in the
shape of another API. What FastAPI adds, models of JSON bodies and a generated schema, would not be used.
"""

from __future__ import annotations

import time

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from arkasr.serving.errors import ApiError, answer_api_error, answer_http_error
from arkasr.serving.keys import check_key
from arkasr.serving.page.routes import PageSettings, page_routes
from arkasr.serving.service import Service
from arkasr.serving.transcriptions import Transcriptions

STATUS = {"ok": 200, "draining": 503, "broken": 503}


def make_app(service: Service, key: str = "") -> Starlette:
    """Build the application.

    Args:
        service: The model, its queue and its clients.
        key: The API key, or an empty string if none is needed.

    Returns:
        The application. `service` must be started before requests arrive.
    """
    started = int(time.time())

    def model() -> dict[str, object]:
        return {"id": service.served.name, "object": "model", "created": started, "owned_by": "arkasr"}

    async def models(request: Request) -> Response:
        check_key(request, key)
        return JSONResponse({"object": "list", "data": [model()]})

    async def one_model(request: Request) -> Response:
        check_key(request, key)
        name = request.path_params["name"]
        if name != service.served.name:
            message = f"model {name[:100]!r} is not served here; use {service.served.name!r}"
            raise ApiError(404, "model_not_found", message, "model")
        return JSONResponse(model())

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": service.status, "open_requests": service.num_open}, STATUS[service.status])

    async def metrics(request: Request) -> Response:
        check_key(request, key)
        return Response(service.metrics.text(), media_type="text/plain; version=1.0.0; charset=utf-8")

    routes = [
        Route("/v1/audio/transcriptions", Transcriptions(service, key), methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", one_model),
        Route("/health", health),
        Route("/metrics", metrics),
        *page_routes(_page_settings(service)),
    ]
    handlers = {HTTPException: answer_http_error, ApiError: answer_api_error}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False  # its redirects name the address of the service, not that of a proxy before it
    return app


def _page_settings(service: Service) -> PageSettings:
    served, limits = service.served, service.limits
    return PageSettings(
        served.name,
        served.settings.language,
        languages=served.languages.accepted,
        trained=served.languages.trained,
        word_times=served.word_times,
        max_bytes=limits.max_bytes,
        max_seconds=limits.max_seconds,
    )
