"""``/docs``: Swagger UI over ``/openapi.json``, served from the machine itself.

The files are those that the distribution swagger-ui-py brings; it is not imported (it would import a template engine).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from aiohttp import hdrs, web
from pydantic import StringConstraints

from locex.web.routes import Routes

OWN = Path(__file__).parent / "static"

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

FileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]{1,40}$")]


def _swagger_ui() -> Path:
    spec = find_spec("swagger_ui")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "static"


SWAGGER_UI = _swagger_ui()

FILES = {
    "docs.js": OWN / "docs.js",
    "docs.css": OWN / "docs.css",
    "swagger-ui.css": SWAGGER_UI / "swagger-ui.css",
    "swagger-ui-bundle.js": SWAGGER_UI / "swagger-ui-bundle.js",
    "favicon-32x32.png": SWAGGER_UI / "favicon-32x32.png",
}
"""All that is served, by name."""

routes = Routes()


@routes.get("/docs", scope=None, produces="text/html", hidden=True)
async def get_docs(request: web.Request) -> web.FileResponse:  # noqa: ARG001 -- a handler's shape
    """Return the page."""
    return web.FileResponse(OWN / "docs.html", headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})


@routes.get("/docs/{file}", scope=None, produces="*/*", parameters={"file": FileName}, hidden=True)
async def get_docs_file(request: web.Request, file: str) -> web.FileResponse:  # noqa: ARG001 -- a handler's shape
    """Return a file of the page."""
    if file not in FILES:
        raise web.HTTPNotFound
    return web.FileResponse(FILES[file], headers={hdrs.CACHE_CONTROL: "max-age=3600"})
