"""The page at /docs on which every route can be tried: Swagger UI from this machine, so that it works offline."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import FileResponse, HTMLResponse

__all__ = ["ASSET_PATHS", "DOCS_PATH", "add_docs_page"]

DOCS_PATH = "/docs"
_ASSETS = ("swagger-ui-bundle.js", "swagger-ui.css")
# A browser fetches them without a key: they are as public as the page.
ASSET_PATHS = tuple(f"{DOCS_PATH}/{name}" for name in _ASSETS)
# Where the files of Swagger UI (Apache-2.0) come with a package.
_ASSET_PACKAGE = "fastapi_offline"
# The page runs what it has from here and talks to nobody else.
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


def add_docs_page(app: FastAPI) -> None:
    """Give `app` the page and its files. Addresses in it are relative, so that it works behind a proxy's path too."""

    @app.get(DOCS_PATH, include_in_schema=False)
    async def read_docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url="openapi.json",
            title=f"{app.title} API",
            swagger_js_url=f"docs/{_ASSETS[0]}",
            swagger_css_url=f"docs/{_ASSETS[1]}",
            swagger_favicon_url="data:,",
            # Its badge would have a server of Swagger's check the description.
            swagger_ui_parameters={"validatorUrl": None},
        )
        page.headers["content-security-policy"] = _POLICY
        return page

    @app.get(f"{DOCS_PATH}/{{name}}", include_in_schema=False)
    async def read_asset(name: str) -> FileResponse:
        if name not in _ASSETS:
            raise HTTPException(404)
        path = Path(str(files(_ASSET_PACKAGE))) / "static" / name
        return FileResponse(path, headers={"cache-control": "max-age=86400"})
