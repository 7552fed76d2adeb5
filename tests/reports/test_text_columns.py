"""Tables for a terminal: no line is wider than it, and no number is cut."""

import io
import sys
import unicodedata

import pytest

from normlab.reports.text_columns import columns, fitted, printed, wrapped

HEADINGS = ["arm", "n", "mean", "95% interval", "difference", "its 95% interval"]
NUMBERS = ["5", "0.612", "0.573 to 0.649", "+0.045", "-0.010 to 0.100"]
NAMES = [
    "batch_norm",
    "バッチ正規化",
    "групповая нормализация",
    "a_normaliser_with_a_name(groups=8,eps=1e-05,affine=true,dialect=flax)",
    "名前がとてもとても長い正規化の方法なのでここに収まらないかもしれないからもう少し長い名前",
]


def places(line):
    """The places of a terminal that a line takes, from Unicode's own table."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


@pytest.mark.parametrize("width", [30, 60, 80, 120])
def test_a_table_fits_and_no_number_is_cut(width):
    lines = fitted(HEADINGS, [[name, *NUMBERS] for name in NAMES], width)
    assert max(map(places, lines)) <= width
    text = "\n".join(lines)
    assert all(text.count(number) == len(NAMES) for number in NUMBERS[1:])


def test_at_80_columns_the_usual_table_is_one_block_and_at_40_it_is_several():
    rows = [[name, *NUMBERS] for name in NAMES]
    assert len([line for line in fitted(HEADINGS, rows, 80) if line.startswith("---")]) == 1
    assert len([line for line in fitted(HEADINGS, rows, 40) if line.startswith("---")]) > 1


def test_numbers_stand_below_each_other():
    lines = fitted(HEADINGS, [[name, *NUMBERS] for name in NAMES], 80)
    ends = {places(line) for line in lines if line.endswith(NUMBERS[-1])}
    assert len(ends) == 1 and sum(line.endswith(NUMBERS[-1]) for line in lines) == len(NAMES)


def test_a_long_cell_becomes_a_list():
    trouble = "seed 3 failed (out of memory); seed 4 diverged at step 12 of the second epoch"
    lines = fitted(["arm", "n", "not as planned"], [["a", "5", trouble]], 40)
    assert lines[-4] == "not as planned:"
    assert " ".join(map(str.strip, lines[-3:])) == f"a: {trouble}"


def test_words_stay_whole_and_lines_keep_their_indent():
    text = "  Supported: the interval lies wholly inside; and_a_word_that_is_far(too=long) for it"
    lines = wrapped(text, 24)
    assert max(map(len, lines)) <= 24 and lines[0].startswith("  Supported")
    assert all(line.startswith("    ") for line in lines[1:])
    whole = {"Supported:", "the", "interval", "lies", "wholly", "inside;", "for", "it"}
    assert whole <= {word for line in lines for word in line.split()}
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert any(line.endswith("_") for line in lines)  # a long name is broken after a sign


def test_wide_characters_do_not_shift_columns():
    assert columns([["名前", "1"], ["ab", "2"]]) == ["名前  1", "ab    2"]


def test_names_that_the_output_cannot_show_are_spelt_before_the_layout(monkeypatch):
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    spelt = r"\u540d\u524d"
    assert printed("名前") == spelt
    assert columns([["名前", "1"], ["ab", "2"]]) == [f"{spelt}  1", f"ab{' ' * 12}2"]


def test_a_text_for_another_place_keeps_its_characters():
    assert printed("名前") == "名前"  # the output of a test replaces nothing
