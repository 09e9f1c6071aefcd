"""Two tabs of one browser, and what it keeps of them."""

from __future__ import annotations

from dashboards.desk import Desk, Desks
from workbench.conversation import import_conversations


def _titles(text: str) -> list[str]:
    return [conversation.messages[0].text for conversation in import_conversations(text)]


def _ask(desk: Desk, text: str) -> None:
    desk.new()
    desk.current.add("user", text)


def test_what_one_tab_writes_stays_when_the_other_one_does() -> None:
    desks = Desks()
    first, second = desks.of("first"), desks.of("second")
    desks.join(first, "browser")
    _ask(first, "From tab one.")
    kept = first.stored()
    desks.join(second, "browser")
    second.restore(kept)
    _ask(second, "From tab two.")
    assert _titles(second.stored()) == ["From tab two.", "From tab one."]
    _ask(first, "From tab one again.")
    assert _titles(first.stored()) == ["From tab one again.", "From tab two.", "From tab one."]

    # The second tab's copy is older than what the first has made of it.
    first.open(first.conversations[-1].conversation_id)
    first.current.add("user", "And more.")
    first.stored()
    kept = import_conversations(second.stored())
    assert [len(one.messages) for one in kept if one.messages[0].text == "From tab one."] == [2]

    desks.close("first")
    second.delete()
    assert _titles(second.stored()) == ["From tab one.", "From tab one again."]


def test_what_was_deleted_is_kept_again_once_it_is_imported() -> None:
    desk = Desks().of("page")
    _ask(desk, "Keep this.")
    text = desk.stored()
    desk.delete()
    assert desk.stored() == ""
    desk.put(*import_conversations(text))
    assert _titles(desk.stored()) == ["Keep this."]


def test_the_newest_that_fit_are_kept_and_sent_once() -> None:
    desk = Desks().of("page")
    _ask(desk, "Keep this.")
    _ask(desk, "word " * 500_000)
    assert _titles(desk.to_store()) == ["Keep this."]
    assert desk.to_store() is None
    desk.open(desk.conversations[-1].conversation_id)
    desk.current.system = "Be brief."
    _ask(desk, "And this.")
    text = desk.to_store()
    assert _titles(text) == ["And this.", "Keep this."] and "Be brief." in text


def test_browsers_are_apart_and_one_that_comes_back_brings_its_own() -> None:
    desks = Desks()
    mine, yours = desks.of("mine"), desks.of("yours")
    desks.join(mine, "a")
    desks.join(yours, "b")
    _ask(mine, "Mine.")
    assert (_titles(mine.stored()), yours.stored()) == (["Mine."], "")
    again = Desks()
    desk = again.of("later")
    again.join(desk, "a")
    desk.restore(mine.stored())
    _ask(desk, "Later.")
    assert _titles(desk.stored()) == ["Later.", "Mine."]
