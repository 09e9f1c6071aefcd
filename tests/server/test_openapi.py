"""Our own description of the API: complete, true of the routes, and held against the server by random requests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from live_endpoint import ADMIN_KEY, http_client, start_endpoint
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from workbench import EngineConfig, LlamaGPU
from workbench.server.docs_page import ASSET_PATHS
from workbench.server.routes import ROUTERS
from workbench.server.settings import PUBLIC_PATHS, ListenSettings, QueueSettings, ServerSettings, WireLimits

KEY_HEADERS = ("authorization", "x-api-key")
# Not whether every request of the right form is accepted: which fields go together is more than a form can say.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    missing_required_header,
    unsupported_method,
]


@pytest.fixture(scope="module")
def description(tiny_endpoint):
    with http_client(tiny_endpoint) as client:
        return client.get("/openapi.json").json()


@pytest.fixture(scope="module")
def tiny_endpoint(tiny_model_folder):
    """An endpoint whose answers are short, whatever is asked."""
    engine = EngineConfig(context_length=48, max_num_seqs=8)
    llm = LlamaGPU(tiny_model_folder, prefer_gpu=False, auto_detect_aws=False, engine=engine)
    wire = WireLimits(max_answers=8, heartbeat_s=5)
    with start_endpoint(llm, ServerSettings(queue=QueueSettings(drain_s=1), wire=wire)) as endpoint:
        yield endpoint
    llm.unload()


@pytest.fixture
def api(tiny_endpoint):
    url = tiny_endpoint.url.removesuffix("/v1") + "/openapi.json"
    return schemathesis.openapi.from_url(url, headers={"authorization": f"Bearer {ADMIN_KEY}"})


OPERATIONS = sorted(
    (re.sub(r"\{(\w+):path\}", r"{\1}", route.path), method)
    for router in ROUTERS
    for route in router.routes
    for method in getattr(route, "methods", ())
)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_random_requests_find_no_failure_and_no_answer_of_another_form(api, path, method, mode):
    @settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=api[path][method].as_strategy(generation_mode=mode))
    def probe(case):
        # Keys are tested elsewhere; the ones that are made up here would only be refused.
        case.headers = {k: v for k, v in (case.headers or {}).items() if k.lower() not in KEY_HEADERS}
        response = case.call(headers={"authorization": f"Bearer {ADMIN_KEY}"}, timeout=60)
        statuses.add(response.status_code)
        case.validate_response(response, checks=CHECKS)
        if response.status_code >= 400:
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}

    statuses = set()
    try:
        probe()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, "there is nothing that could be wrong in such a request"
    assert not statuses & {401, 429}, "these requests got no further than the door"


def test_every_route_is_described_and_nothing_else(description):
    described = {(method.upper(), path) for path, item in description["paths"].items() for method in item}
    routes = {
        (method, re.sub(r"\{(\w+):path\}", r"{\1}", route.path))
        for router in ROUTERS
        for route in router.routes
        for method in getattr(route, "methods", ())
    }
    assert described == routes


def test_every_operation_says_what_it_does_and_every_error_has_one_form(description):
    for path, item in description["paths"].items():
        for operation in item.values():
            assert operation["summary"] and operation["description"], path
            assert "422" not in operation["responses"]
            for status in ("400", "401", "403", "404", "429", "500", "503"):
                content = operation["responses"][status]["content"]["application/json"]
                assert content["schema"] == {"$ref": "#/components/schemas/ErrorBody"}


def test_generating_operations_have_examples(description):
    schemas = description["components"]["schemas"]
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/tokenize"):
        body = description["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schemas[body["$ref"].rpartition("/")[2]]["examples"]


def test_public_paths_are_those_that_need_no_key(description):
    public = {path for path, item in description["paths"].items() for op in item.values() if op.get("security") == []}
    assert public == set(PUBLIC_PATHS) & set(description["paths"])
    assert description["security"] == [{"bearer": []}, {"header": []}]


def test_the_page_and_its_parts_come_from_this_server_alone(tiny_endpoint):
    with http_client(tiny_endpoint, None) as client:
        page = client.get("/docs")
        addresses = re.findall(r"""(?:href|src|url)\s*[=:]\s*["']([^"']+)["']""", page.text)
        assert len(addresses) == 4 and "//" not in page.text.replace("<!-- ", "").partition("<body>")[2]
        assert not [address for address in addresses if address.startswith(("http", "/"))]
        assert "connect-src 'self'" in page.headers["content-security-policy"]
        for address, kind in (("docs/swagger-ui.css", "text/css"), ("docs/swagger-ui-bundle.js", "javascript")):
            assert address in addresses
            part = client.get(f"/{address}")
            assert part.status_code == 200 and kind in part.headers["content-type"] and len(part.content) > 100_000
        assert client.get("/docs/favicon.png").status_code == 401, "nothing else of that package is shown"


def test_a_page_that_is_not_public_has_no_public_parts(llm):
    listen = ListenSettings(public_paths=("/health",))
    with start_endpoint(llm, ServerSettings(listen)) as endpoint, http_client(endpoint, None) as client:
        for path in ("/docs", *ASSET_PATHS):
            assert client.get(path).status_code == 401


def test_the_documentation_names_every_route():
    page = (Path(__file__).parents[2] / "docs" / "server.md").read_text()
    paths = [re.sub(r"\{(\w+):path\}", r"{\1}", route.path) for router in ROUTERS for route in router.routes]
    missing = [path for path in paths if f"{path}`" not in page]
    assert missing == []
