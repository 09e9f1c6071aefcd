import pytest

from dashboards.outside_address import outside_host, outside_url

HEADERS = {"origin": "https://hub.org:8443"}


@pytest.mark.parametrize(
    ("root_path", "headers", "url"),
    [
        ("/user/x/proxy/8000", HEADERS, "https://hub.org:8443/user/x/proxy/34041/v1"),
        ("/proxy/8000/", HEADERS, "https://hub.org:8443/proxy/34041/v1"),
        # Another kind of proxy, which shows this port alone; no proxy; a caller that is no page.
        ("/apps/workbench", HEADERS, None),
        ("", HEADERS, None),
        ("/proxy/8000", {}, None),
    ],
)
def test_the_endpoint_is_beside_the_app(root_path, headers, url):
    assert outside_url({"root_path": root_path}, headers, 34041) == url


def test_the_name_that_calls_come_under():
    assert outside_host(HEADERS) == "hub.org"
    assert outside_host({}) is None
