"""The normalisers are listed by group and drawn with what they came from."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from normlab.catalogue import NORMS, PLACEMENTS
from normlab.cli import app
from normlab.errors import UserError
from normlab.interface import lineage

ROOT = Path(__file__).parents[2]
ENTRIES = NORMS.entries()


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_every_entry_declares_its_group_and_came_from_entries_that_are_not_younger():
    for name, entry in ENTRIES.items():
        assert entry.told.get("group") in lineage.GROUPS, name
        for parent in lineage.after(entry):
            assert parent in ENTRIES and parent != name, f"{name} came from {parent}"
            older, younger = lineage.year(ENTRIES[parent]), lineage.year(entry)
            assert not older or not younger or older <= younger, f"{name} is older than {parent}"


@pytest.mark.parametrize("name", ENTRIES)
def test_nothing_came_from_itself(name):
    seen, ahead = set(), [name]
    while ahead:
        ahead = [parent for one in ahead for parent in lineage.after(ENTRIES[one])]
        assert name not in ahead and len(seen) <= len(ENTRIES)
        seen.update(ahead)


def test_the_list_has_every_entry_once_with_its_year_in_80_places():
    done = run("list", "norms")
    lines = done.output.splitlines()
    assert done.exit_code == 0 and max(map(len, lines)) <= 80
    heads = [line for line in lines if re.match(r"\S", line)]
    assert [head.partition(":")[0] for head in heads] == [*lineage.GROUPS, "placement"]
    found = [line.split()[0] for line in lines if re.match(r"  \S", line)]
    assert sorted(found) == sorted([*ENTRIES, *PLACEMENTS.entries()])
    assert any(re.match(r"  group_norm +2018  Group normalisation", line) for line in lines)


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_list_fits_a_terminal_and_loses_no_word(width):
    text = lineage.listing(width)
    assert max(map(len, text.splitlines())) <= width
    for entry in ENTRIES.values():
        assert entry.summary.replace(" ", "") in text.replace(" ", "").replace("\n", "")


def test_the_tree_has_every_entry_once_and_of_a_name_what_came_from_it():
    text = run("family").output
    names = re.findall(r"^[│├└─ ]*(\w+)", text, re.MULTILINE)
    assert sorted(names) == sorted(ENTRIES)
    assert lineage.tree("rms_norm").splitlines()[0] == "rms_norm (2019)"
    assert "seed_norm" in lineage.tree("rms_norm") and "batch_norm" not in lineage.tree("rms_norm")
    with pytest.raises(UserError, match="did you mean 'rms_norm'"):
        lineage.tree("rms_nrom")


def test_the_picture_holds_every_entry_apart_and_a_line_for_each_descent():
    root = ElementTree.fromstring(lineage.picture())
    space = "{http://www.w3.org/2000/svg}"
    boxes = {}
    for group in root.iter(f"{space}g"):
        text, box = group.find(f"{space}text"), group.find(f"{space}rect")
        assert text is not None and box is not None
        boxes[text.text] = [float(box.attrib[key]) for key in ("x", "y", "width", "height")]
    assert sorted(boxes) == sorted(ENTRIES)
    for name, (x, y, wide, high) in boxes.items():
        for other, (x2, y2, wide2, high2) in boxes.items():
            apart = x + wide <= x2 or x2 + wide2 <= x or y + high <= y2 or y2 + high2 <= y
            assert apart or name == other, f"{name} lies on {other}"
    descents = sum(len(lineage.after(entry)) for entry in ENTRIES.values())
    assert len(list(root.iter(f"{space}path"))) == descents


def test_the_picture_of_the_docs_is_the_one_that_the_entries_give():
    shown = (ROOT / "docs" / "static" / "family.svg").read_text("utf-8")
    assert shown == lineage.picture(), "run `normlab family --out docs/static/family.svg`"


def test_the_command_writes_the_picture_and_names_what_it_cannot_write(tmp_path):
    done = run("family", "--out", str(tmp_path / "family.svg"))
    assert done.exit_code == 0 and (tmp_path / "family.svg").read_text("utf-8").startswith("<svg")
    for wrong in (tmp_path / "family.png", tmp_path / "no" / "family.svg"):
        with pytest.raises(UserError, match=r"\.svg"):
            app(["family", "--out", str(wrong)], standalone_mode=False)
