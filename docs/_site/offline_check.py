"""Finds what a built page would fetch from elsewhere. Links that people click may lead anywhere."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

__all__ = ["fetched_from_elsewhere"]

# Element -> the attribute whose address a browser fetches by itself.
_FETCHING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
_FETCHING_LINKS = {
    "stylesheet",
    "icon",
    "preload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
    "manifest",
    "modulepreload",
}


class _Fetches(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag in _FETCHING:
            self.addresses.append(found.get(_FETCHING[tag], ""))
        elif tag == "link" and set(found.get("rel", "").split()) & _FETCHING_LINKS:
            self.addresses.append(found.get("href", ""))


def fetched_from_elsewhere(folder: Path) -> list[str]:
    """ "PAGE: ADDRESS" for each address on another host that opening a page of `folder` would fetch."""
    found = []
    for page in sorted(folder.rglob("*.html")):
        parser = _Fetches()
        parser.feed(page.read_text("utf-8"))
        found += [
            f"{page.relative_to(folder)}: {address}"
            for address in parser.addresses
            if address.startswith(("http://", "https://", "//"))
        ]
    for sheet in sorted(folder.rglob("*.css")):
        text = sheet.read_text("utf-8")
        found += [f"{sheet.relative_to(folder)}: {mark}" for mark in ("url(http", "url(//", "@import") if mark in text]
    return found
