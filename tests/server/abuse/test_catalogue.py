"""The catalogue of abuse has 48 cases, and each is the number of a test in this folder."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_number_has_a_test():
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert {int(number) for number in re.findall(r"def test_(\d\d)_", text)} == set(range(1, 49))
