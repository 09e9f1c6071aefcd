import pytest

from workbench.errors import ConfigError
from workbench.twin import Twin, is_headless


def test_text_lines_up_and_html_is_escaped():
    twin = Twin("Panel", (("model", "default"), ("you", "<script>alert(1)</script>")))
    assert twin.as_text() == "Panel\n  model  default\n  you    <script>alert(1)</script>"
    assert "<script>" not in twin.as_html()
    assert "&lt;script&gt;" in twin.as_html()


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_headless_by_environment(value, expected):
    assert is_headless({"WORKBENCH_HEADLESS": value}) is expected
    assert is_headless({}) is False


def test_a_value_that_means_nothing_is_refused():
    with pytest.raises(ConfigError, match="WORKBENCH_HEADLESS is 'maybe'"):
        is_headless({"WORKBENCH_HEADLESS": "maybe"})
