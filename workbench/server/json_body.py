"""Request bodies: JSON and nothing else, read strictly, and refused in the API's own words. So are query strings."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic_core import from_json

from workbench.server.errors import ApiError, invalid, unknown_parameter

__all__ = ["JsonRoute", "parse_json"]

# A number of more digits than a double can hold is a mistake or an attack.
_MAX_DIGITS = 330
# Jupyter's, by which it lets a caller through its proxy; the proxy passes the whole query string on.
_PASSED_ON = frozenset({"token"})


class JsonRoute(APIRoute):
    """A route whose body, if it has one, is strict JSON sent as JSON, and whose query string holds nothing unknown."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = _query_names(self.dependant) | _PASSED_ON

        async def handle_strictly(request: Request) -> Response:
            for name in request.query_params:
                if name not in known:
                    raise unknown_parameter(name)
            field = self.body_field
            if field is not None and (field.field_info.is_required() or _has_body(request)):
                _check_headers(request)
            return await handle(_StrictRequest(request.scope, request.receive))

        return handle_strictly


class _StrictRequest(Request):
    async def json(self) -> Any:
        return parse_json(await self.body())


def parse_json(data: bytes | str) -> Any:
    """The value that `data` spells.

    Raises a 400 for what is not JSON, for NaN and infinities, for two equal keys in one object, for half of a surrogate
    pair, for numbers of absurd length and for nesting beyond 200 levels.
    """
    try:
        # This parser bounds the nesting and checks the text; the second one sees every key.
        from_json(data, allow_inf_nan=False)
        return json.loads(data, object_pairs_hook=_object, parse_int=_integer, parse_constant=_no_constant)
    except ApiError:
        raise
    except (ValueError, RecursionError):
        raise invalid("the body is not valid JSON", code="invalid_json") from None


def _query_names(dependant: Dependant) -> frozenset[str]:
    """What a route and its dependencies read from the query string."""
    own = (field.alias for field in dependant.query_params)
    return frozenset(own).union(*map(_query_names, dependant.dependencies))


def _has_body(request: Request) -> bool:
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"


def _check_headers(request: Request) -> None:
    # A form on a foreign page can send text/plain without asking first, but not JSON.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "the body must be sent as application/json", code="unsupported_media_type")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "the body must be sent without a content-encoding", code="unsupported_encoding")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise invalid("the body has two equal keys in one object", code="invalid_json")
    return values


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise invalid("the body has a number of more digits than can be meant", code="invalid_json")
    return int(digits)


def _no_constant(name: str) -> Any:
    raise ValueError(name)
