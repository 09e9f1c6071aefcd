import pytest

from workbench.number_text import three_digits


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.4112, "0.411"),
        (0.0000123, "0.000012"),
        (12.345, "12.3"),
        (100, "100"),
        (103.4, "103"),
        (999.9, "1,000"),
        (1234.5, "1,230"),
        (26_512, "26,500"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_read_well(value: float, text: str) -> None:
    assert three_digits(value) == text
