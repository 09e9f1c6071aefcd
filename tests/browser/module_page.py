"""A widget's module alone on an empty page, with a model that the test plays: no Lab and no kernel."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

from widgets.front_end import module_text

_RENDER = """async ([source, state]) => {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const { default: module } = await import(url);
  const heard = {};
  window.sent = [];
  window.change = (news) => {
    Object.assign(state, news);
    for (const name of Object.keys(news)) (heard[`change:${name}`] ?? []).forEach((hear) => hear());
  };
  window.say = (content) => heard["msg:custom"].forEach((hear) => hear(content));
  const model = {
    get: (name) => state[name],
    on: (event, hear) => (heard[event] ??= []).push(hear),
    off: () => {},
    send: (content) => window.sent.push(content),
  };
  module.render({ model, el: document.body });
}"""


class ModulePage:
    """Renders the module `name` over traits of these values."""

    def __init__(self, page: Page, name: str, **state: Any) -> None:
        self.page = page
        page.set_content("<!doctype html><html lang=en><body></body></html>")
        page.evaluate(_RENDER, [module_text(name), state])

    def change(self, **news: Any) -> None:
        """Traits have other values, as when the kernel changed them."""
        self.page.evaluate("news => change(news)", news)

    def say(self, **content: Any) -> None:
        """The kernel sends a custom message."""
        self.page.evaluate("content => say(content)", content)

    def sent(self, kind: str) -> list[dict[str, Any]]:
        """What was sent to the kernel so far, of one type."""
        return self.page.evaluate("kind => sent.filter((content) => content.type === kind)", kind)

    def focused(self) -> str:
        """The text of the element that has the keyboard, or its class where it has none."""
        return self.page.evaluate("document.activeElement.textContent || document.activeElement.className")
