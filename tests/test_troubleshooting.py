"""Every error has an entry, and no entry is about an error that is not there."""

import inspect
import re
from pathlib import Path

import pytest

from workbench import errors

DOCS = Path(__file__).resolve().parent.parent / "docs"
ENTRIES = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)


def test_the_entries_are_the_errors():
    classes = [name for name, value in inspect.getmembers(errors, inspect.isclass) if name == value.__name__]
    assert sorted(ENTRIES) == sorted(classes)


@pytest.mark.parametrize("page", ["troubleshooting", "security", "install"])
def test_links_lead_to_pages_and_headings(page):
    for target, heading in re.findall(r"\]\(([^)#]+)(?:#([\w-]+))?\)", (DOCS / f"{page}.md").read_text()):
        text = (DOCS / target).read_text()
        slugs = {line.lstrip("# ").lower().replace(" ", "-") for line in text.splitlines() if line.startswith("#")}
        assert not heading or heading in slugs, (target, heading)


def test_commands_that_the_pages_name_exist():
    from workbench.cli.root import root_command

    known = set(root_command().list_commands(None))
    for page in ("troubleshooting", "security", "install"):
        assert set(re.findall(r"`workbench (\w+)", (DOCS / f"{page}.md").read_text())) <= known
