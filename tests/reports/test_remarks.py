"""A person's remark stands in every report; a withdrawn verdict is never shown as one."""

import json

import pytest
from typer.testing import CliRunner

from normlab.cli import app
from normlab.errors import UserError
from normlab.evidence.remarks import read_remarks
from normlab.evidence.verdicts import judge
from normlab.measures.claims import Claim
from normlab.reports.export import to_json
from normlab.reports.html import to_fragment, to_html
from normlab.reports.markdown import to_markdown, to_text
from normlab.reports.publishing import page, publish
from normlab.reports.shown_comparison import compare
from normlab.reports.superseded import superseded_lines
from normlab.store.loading import load
from tests.shared.simulated import simulate

FINAL = "final(test_accuracy)"
TRUE = Claim("a beats b", FINAL, "a", "b", "difference > 0")
FALSE = Claim("b beats a", FINAL, "b", "a", "difference > 0")
ARMS = {"a": [0.81, 0.82, 0.83], "b": [0.71, 0.72, 0.7]}
REMARKS = """\
beware: the arms heard other voices
copy: WAV files
withdrawn:
  - says: a beats b
    why: It is loudness.
"""


@pytest.fixture
def published(tmp_path):
    folder = publish(simulate(tmp_path / "runs", ARMS, [TRUE, FALSE]), tmp_path / "results")
    (folder / "remarks.yaml").write_text(REMARKS, "utf-8")
    return load(folder)


def test_every_report_says_them(published):
    found = compare(published)
    reports = (to_text(found), to_markdown(found, "command"), to_html(found, "command"),
               to_fragment(found), to_json(found), page(published, []))  # fmt: skip
    for text in reports:
        assert "the arms heard other voices" in text
        assert "Withdrawn: It is loudness. By the numbers: Supported" in text.replace(
            "</b>", ""
        ).replace("</strong>", "")
    assert "0123456789abcdef). WAV files" in page(published, [])


def test_the_numbers_still_say_what_they_say(published):
    withdrawn, other = judge(published)
    assert (withdrawn.outcome, withdrawn.retracted) == ("supported", "It is loudness.")
    assert (other.outcome, other.retracted) == ("refuted", "")
    assert json.loads(to_json(compare(published)))["claims"][0]["retracted"] == "It is loudness."


def test_a_withdrawn_refutation_is_none(published):
    run = CliRunner().invoke(app, ["verdict", str(published.path)])
    assert run.exit_code == 1 and "beware: the arms heard other voices" in run.output
    (published.path / "remarks.yaml").write_text(REMARKS.replace("a beats b", "b beats a"))
    assert CliRunner().invoke(app, ["verdict", str(published.path)]).exit_code == 0


def test_without_the_file_there_are_none(tmp_path):
    remarks = read_remarks(tmp_path)
    assert (remarks.beware, remarks.copy, remarks.withdrawn) == ("", "", {})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("beware: [a]", "allowed are beware, copy, withdrawn"),
        ("bewear: a", "found bewear"),
        ("- a", "found list"),
        ("withdrawn: a", "`withdrawn` is a list"),
        ("withdrawn: [{says: a}]", "`why`, the reason"),
        ("withdrawn: [a]", "each of the list has `says`"),
        ("beware: {", "is no YAML"),
    ],
)
def test_another_form_is_told(tmp_path, text, told):
    (tmp_path / "remarks.yaml").write_text(text)
    with pytest.raises(UserError, match=told):
        read_remarks(tmp_path)


def test_a_former_verdict_can_have_a_reason(published):
    one = {
        "claim": TRUE.hash,
        "says": TRUE.says,
        "outcome": "undecided",
        "verdict": "Undecided: it was.",
        "commit": "0123456789abcdef",
        "code": ["0123456789"],
        "why": "It rounded otherwise.",
    }
    lines = superseded_lines(published, [one])
    assert lines[-2] == "- a beats b (now supported)."
    assert lines[-1].endswith("made by the code 0123456789. It rounded otherwise.")
