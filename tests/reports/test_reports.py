"""The table, the exports and the page, for experiments in every state of repair."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys

import pytest

from normlab.errors import UserError
from normlab.evidence.baselines import baselines
from normlab.evidence.caveats import differing, warnings
from normlab.measures.claims import Claim
from normlab.reports.arm_table import table
from normlab.reports.export import to_csv, to_json
from normlab.reports.html import to_fragment, to_html
from normlab.reports.markdown import to_markdown
from normlab.reports.shown_comparison import compare
from normlab.store.loading import load
from tests.shared.simulated import PROVENANCE, simulate, write, write_run
from tests.shared.waiting import GENEROUS

HOSTILE = '<script>alert("1")</script> & ünï|code'
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--enable-logging=stderr"]  # fmt: skip


@pytest.fixture
def troubled(tmp_path):
    """An experiment with a diverged, a failed, a missing and a running run, and hostile words."""
    folder = tmp_path / "e"
    claims = [Claim(HOSTILE, "final(test_accuracy)", "batch_norm", "identity", "difference > 0")]
    made = [write_run(folder, "identity", i, 0.5 + 0.01 * i) for i in range(5)]
    made += [write_run(folder, "batch_norm", i, 0.7 + 0.01 * i) for i in range(3)]
    made += [
        write_run(folder, "batch_norm", 3, 0.6, state="diverged", step=35),
        write_run(folder, "batch_norm", 4, 0.6, state="failed", error="out of memory"),
        write_run(folder, "rms_norm", 0, 0.6, state="running"),
        write_run(folder, "rms_norm", 1, state="new"),
    ]
    return write(folder, made, claims, question=HOSTILE, target={"test_accuracy": 0.6})


def test_the_table_says_how_many_how_much_and_what_is_missing(troubled):
    headings, rows = table(compare(troubled, baseline="identity"))
    cells = {row[0]: dict(zip(headings, row, strict=True)) for row in rows}
    assert cells["identity (baseline)"]["mean final(test_accuracy)"] == "0.520"
    batch = cells["batch_norm"]
    assert batch["n"] == "4 of 5"  # three, and the diverged one, which counts as a guess
    assert batch["mean final(test_accuracy)"] == "0.557"
    assert batch["not as planned"] == "seed 3 diverged at step 35; seed 4 failed (out of memory)"
    assert (
        batch["steps to 0.6"] == "40.0 (3 of 4 reached it)"
        or "of 4 reached" in batch["steps to 0.6"]
    )
    assert cells["rms_norm"]["n"] == "0 of 2"


def test_the_baseline_is_named_or_the_first_and_a_typo_is_told(troubled):
    assert compare(troubled).baseline == "identity"
    assert compare(troubled, baseline="rms_norm").baseline == "rms_norm"
    with pytest.raises(UserError, match="no arm is called 'batchnorm'; did you mean 'batch_norm'"):
        compare(troubled, baseline="batchnorm")
    with pytest.raises(UserError, match="there is no measure 'last'"):
        compare(troubled, measure="last(test_accuracy)")
    with pytest.raises(UserError, match="these runs have no 'val_accuracy'"):
        compare(troubled, measure="final(val_accuracy)")
    with pytest.raises(UserError, match="an experiment's runs are needed"):
        compare(troubled.runs[0])


@pytest.fixture
def two_networks(tmp_path):
    """Normalisers in two networks, of which the second is better whatever it has."""
    folder = tmp_path / "e"
    better = {"identity": 0.0, "batch_norm": 0.1, "small": 0.0, "big": 0.2}
    made = [
        write_run(folder, f"{model}, {norm}", seed,
                  0.5 + better[norm] + better[model] + noise / 100,
                  axes={"model": model, "norm": norm}, norm=norm)
        for norm in ("identity", "batch_norm") for model in ("small", "big")
        for seed, noise in enumerate([0, 1, 2] if norm == "identity" else [2, 0, 1])
    ]  # fmt: skip
    return write(folder, made)


def test_normalisers_are_compared_within_each_network(two_networks):
    comparison = compare(two_networks)
    assert comparison.against == "identity in the same setting"
    assert [(arm.name, arm.baseline) for arm in comparison.arms] == [
        ("small, identity", "small, identity"),
        ("small, batch_norm", "small, identity"),
        ("big, identity", "big, identity"),
        ("big, batch_norm", "big, identity"),
    ]
    for network in ("small", "big"):
        found = comparison.arm(f"{network}, batch_norm").difference
        assert found is not None and found.estimate == pytest.approx(0.1)
    page = to_markdown(comparison, "normlab report e")
    assert "big, batch_norm is better than big, identity by 0.100" in page
    assert "for all 2 arms compared" in page and page.count("(baseline)") == 2


def test_a_whole_arm_as_baseline_is_the_only_one(two_networks):
    comparison = compare(two_networks, baseline="small, identity")
    assert comparison.against == "small, identity"
    found = comparison.arm("big, batch_norm").difference
    assert found is not None and found.estimate == pytest.approx(0.3)


def test_a_value_as_baseline_stands_for_it_in_every_setting(two_networks):
    comparison = compare(two_networks, baseline="big")
    assert comparison.arm("small, batch_norm").baseline == "big, batch_norm"
    assert comparison.arm("big, batch_norm").difference is None
    arms = {f"{m}, {n}": {"model": m, "norm": n} for m in "abc" for n in "xyz"}
    del arms["c, y"]
    assert baselines(arms, None)[1]["c, z"] == "c, x"
    with pytest.raises(UserError, match="'y' is a, y or b, y, none of them in the setting of 'c,"):
        baselines(arms, "y")
    del arms["c, x"]  # not every network has it, so the first arm of all is what there is
    assert baselines(arms, None) == ("a, x", dict.fromkeys(arms, "a, x"))


def test_json_is_json_and_csv_has_a_line_a_run(troubled):
    comparison = compare(troubled)
    found = json.loads(to_json(comparison), parse_constant=pytest.fail)
    assert [arm["arm"] for arm in found["arms"]] == ["identity", "batch_norm", "rms_norm"]
    assert found["claims"][0]["outcome"] == "undecided" and len(found["runs"]) == 12
    rows = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    assert len(rows) == 12 and rows[0]["final(test_accuracy)"] == "0.5"
    assert {row["state"] for row in rows} == {"done", "diverged", "failed", "running", "new"}


def test_frames_have_a_row_an_arm_a_run_and_an_evaluation(troubled):
    pytest.importorskip("pandas")
    assert list(compare(troubled).frame()["arm"]) == ["identity", "batch_norm", "rms_norm"]
    assert len(troubled.frame()) == 12
    assert len(troubled.curves()) == 8 * 6 + 3 + 6 + 6


def test_markdown_escapes_what_would_break_a_table(troubled):
    text = to_markdown(compare(troubled), "normlab report e")
    assert "| identity (baseline) | 5 |" in text and "Undecided: " in text and "## Warnings" in text


def test_what_differs_is_told_with_defaults_and_without_the_seed(troubled):
    keys, arms = differing(compare(troubled).records)
    assert keys == ["norm.name"] and arms["batch_norm"] == {"norm.name": "batch_norm"}


def test_mixed_versions_and_unequal_budgets_are_flagged(tmp_path):
    folder = tmp_path / "e"
    newer = {"versions": {**PROVENANCE["versions"], "jax": "0.11"}, "at_once": 2}
    made = [write_run(folder, "a", i, 0.5) for i in range(2)]
    made += [write_run(folder, "b", 0, 0.5, proof=newer)]
    runs = write(folder, made)
    file = runs.runs[0].path / "status.json"
    file.write_text(file.read_text().replace('"steps": 60', '"steps": 120'))
    found = "\n".join(warnings(compare(runs).records, "best", ("test_accuracy",)))
    assert "mixed versions" in found and "0.11" in found
    assert "unequal budgets of optimiser steps" in found
    assert "Seconds were taken while 1 or 2 runs were made at once" in found
    assert "Fewer finished runs than other arms have: b (1 of 2)." in found
    assert "chooses by the test set" in found


def test_a_sweep_of_two_axes_has_a_heat_map_and_one_over_data_sets_a_profile(tmp_path):
    folder = tmp_path / "e"
    made = [
        write_run(folder, f"{norm}, batch_size={size}", seed, 0.5 + size / 100,
                  axes={"norm": norm, "batch_size": size, "data": data},
                  state="new" if (norm, size) == ("b", 4) else "done", norm=norm)
        for data in ("x",) for norm in "ab" for size in (2, 4) for seed in range(2)
    ]  # fmt: skip
    comparison = compare(write(folder, made))
    figure = comparison.plot("heat")
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words == ["0.52", "0.54", "0.52", "missing"]
    assert comparison.plot("profile").axes[0].lines
    slopes = compare(comparison.runs, measure="slope(test_accuracy, batch_size)")
    assert slopes.arm("a, x").sample.values == pytest.approx([0.02, 0.02])
    simple = compare(simulate(tmp_path / "f", {"a": [0.5], "b": [0.6]}))
    with pytest.raises(UserError, match="a heat map needs two axes"):
        simple.plot("heat")
    with pytest.raises(UserError, match="there is no plot 'curve'; did you mean 'curves'"):
        simple.plot("curve")


def test_an_experiment_whose_arms_are_being_tuned_has_nothing_to_compare_yet(tmp_path):
    with pytest.raises(UserError, match="its arms are being tuned"):
        compare(write(tmp_path / "e", []))


def test_one_run_an_arm_is_reported_and_said_to_tell_nothing(tmp_path):
    comparison = compare(simulate(tmp_path / "f", {"a": [0.5], "b": [0.6]}))
    page = to_html(comparison, "normlab report f")
    assert "one run says nothing of a difference" in page


def test_the_page_escapes_every_word_and_fetches_nothing(troubled):
    page = to_html(compare(troubled), "normlab report e")
    assert "<script" not in page and "&lt;script&gt;" in page and "ünï|code" in page
    fetched = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(?!#|data:)([^\"')\s>]+)", page)
    assert not fetched
    for words in ("diverged at step 35", "missing", "running", "failed", "What differs",
                  "fingerprint", "normlab report e", "every seed", "Undecided"):  # fmt: skip
        assert words in page
    assert "<script" not in to_fragment(compare(troubled))


def test_the_same_runs_give_the_same_bytes_in_another_process_too(troubled):
    code = (
        "import sys; from normlab.evidence.comparison import compare; "
        "from normlab.reports.html import to_html; from normlab.store.loading import load; "
        "sys.stdout.buffer.write(to_html(compare(load(sys.argv[1])), 'c').encode())"
    )
    here = to_html(compare(load(troubled.path)), "c").encode()
    there = subprocess.run(
        [sys.executable, "-c", code, troubled.path], capture_output=True, check=True
    )
    assert there.stdout == here


def browse(page, tmp_path, *flags):
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, page.as_uri()],
        capture_output=True, text=True, timeout=GENEROUS,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [390, 1000])
def test_a_browser_shows_the_page_and_it_fits_a_phone(troubled, tmp_path, width):
    page = tmp_path / "report.html"
    text = to_html(compare(troubled), "normlab report e")
    page.write_text(text, encoding="utf-8")
    shot = tmp_path / "shot.png"
    browse(page, tmp_path, f"--window-size={width},1500", f"--screenshot={shot}")
    assert shot.stat().st_size > 20_000
    # A copy that measures itself: the page as a whole must not scroll sideways.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"<iframe src='report.html' width={width} height=1500 style='border:0'></iframe><script>"
        "onload = () => { const page = frames[0].document.documentElement; "
        "document.title = page.scrollWidth + ' of ' + page.clientWidth }</script>"
    )
    local = ("--allow-file-access-from-files", "--virtual-time-budget=3000", "--dump-dom")
    title = re.search(r"<title>(\d+) of (\d+)", browse(frame, tmp_path, *local))
    assert int(title[1]) <= int(title[2]) <= width
