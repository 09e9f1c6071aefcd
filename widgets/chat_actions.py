"""What a page may ask of a chat: the kind of a message to the method that does it. Answers what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError
from workbench.failure import Failure

if TYPE_CHECKING:
    from widgets.chat_box import ChatBox

__all__ = ["do_chat_action"]

Content = Mapping[str, Any]
Action = Callable[["ChatBox", Content], object]


def _text(content: Content) -> str:
    return str(content.get("text"))


def _export(chat: ChatBox, _content: Content) -> None:
    chat.send({"type": "export", "text": chat.export_json()})


def _export_all(chat: ChatBox, _content: Content) -> None:
    chat.send({"type": "export", "text": chat.export_json(everything=True), "name": "conversations.json"})


def _look_inside(chat: ChatBox, content: Content) -> None:
    chat.looks_inside = bool(content.get("on"))


_ACTIONS: Mapping[str, Action] = {
    "ask": lambda chat, content: chat.ask(_text(content)),
    "new": lambda chat, content: chat.new_chat(),
    "open": lambda chat, content: chat.open_chat(str(content.get("id"))),
    "clear": lambda chat, content: chat.clear(),
    "regenerate": lambda chat, content: chat.regenerate(content.get("number")),
    "continue": lambda chat, content: chat.continue_reply(),
    "edit": lambda chat, content: chat.edit(content["number"], _text(content)),
    "show": lambda chat, content: chat.show_version(content["number"], int(content.get("step", 1))),
    "branch": lambda chat, content: chat.branch(content["number"]),
    "system": lambda chat, content: chat.set_system(_text(content)),
    "preset": lambda chat, content: chat.choose_preset(str(content.get("name"))),
    "sampling": lambda chat, content: chat.set_sampling(str(content.get("name")), content.get("value")),
    "save_preset": lambda chat, content: chat.save_preset(str(content.get("name"))),
    "remove_preset": lambda chat, content: chat.remove_preset(str(content.get("name"))),
    "inside": _look_inside,
    "inspect": lambda chat, content: chat.inspect(content["number"]),
    "export": _export,
    "export_all": _export_all,
    "import": lambda chat, content: chat.import_json(_text(content)),
}


def do_chat_action(chat: ChatBox, content: Content) -> None:
    """Do what a message of the page asks. Refusals go back to it, so that the user's text is not lost."""
    kind = str(content.get("type"))
    action = _ACTIONS.get(kind)
    if action is None:
        return
    about = {"to": kind} | ({"number": content["number"]} if "number" in content else {})
    try:
        action(chat, content)
    except (WorkbenchError, KeyError, TypeError, ValueError) as error:
        chat.show_settings()
        chat.send({"type": "refused", **about, **Failure.of(error).as_dict()})
    else:
        chat.send({"type": "accepted", **about})
