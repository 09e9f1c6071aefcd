from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import typer

from workbench.cli.settings_options import takes_settings
from workbench.errors import ConfigError


@dataclass(frozen=True)
class Oven:
    """Bakes.

    Attributes:
        degrees: how hot,
            in Celsius.
        racks, shelves: both of them.
    """

    degrees: float = 180.0
    racks: int | None = 2
    shelves: tuple[int, ...] = ()
    offsets: Mapping[int, float] = field(default_factory=dict)
    fan: bool = True

    def __post_init__(self):
        if self.degrees > 300:
            raise ConfigError("degrees: too hot")


def bake(*args, **defaults):
    baked = []

    @takes_settings(defaults, oven=Oven)
    def command(cake: str, *, oven: Oven) -> None:
        baked.append((cake, oven))

    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command()(command)
    app([*args], standalone_mode=False)
    return baked[0] if baked else None


def test_defaults_are_those_of_the_class():
    assert bake("apple") == ("apple", Oven())


def test_options_become_fields():
    options = [
        "--degrees",
        "200",
        "--racks",
        "none",
        "--shelves",
        "1",
        "--shelves",
        "3",
        "--offsets",
        "1=0.5",
        "--no-fan",
    ]
    assert bake("apple", *options) == ("apple", Oven(200.0, None, (1, 3), {1: 0.5}, False))


def test_a_command_may_have_other_defaults():
    assert bake("apple", racks=None, degrees=150.0)[1] == Oven(150.0, None)


def test_what_the_class_refuses_is_raised():
    with pytest.raises(ConfigError, match="too hot"):
        bake("apple", "--degrees", "301")


def test_help_is_the_docstring(capsys):
    bake("--help")
    out = " ".join(capsys.readouterr().out.split())
    assert "How hot, in Celsius." in out
    assert out.count("Both of them.") == 2


def test_a_field_that_has_no_option_is_noticed():
    @dataclass
    class Odd:
        thing: object = None

    with pytest.raises(TypeError, match=r"Odd\.thing"):
        takes_settings(odd=Odd)


def test_a_field_can_say_that_it_is_no_option():
    @dataclass
    class Marked:
        thing: object = field(default="kept", metadata={"option": False})

    made = []
    takes_settings(marked=Marked)(lambda *, marked: made.append(marked))()
    assert made == [Marked("kept")]
