"""An arm may have any name: pictures, pages and tables show it as it is."""

import io
import re
import warnings
from html import unescape

import matplotlib
import pytest

from normlab.reports.figures.style import SVG
from normlab.reports.html import to_fragment, to_html
from normlab.reports.markdown import to_markdown, to_text
from normlab.reports.shown_comparison import KINDS, compare
from tests.shared.simulated import simulate

NAMES = [
    "$x$",
    r"cost $ \frac{",
    "a%b {c} 'd\" <i> & #0072b2",
    "_hidden",
    r"\alpha_$",
    "two\nlines",
]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "e"
    (folder).mkdir()
    arms = {f"arm{i}": [0.5 + i / 50, 0.52 + i / 50] for i in range(len(NAMES))}
    runs = simulate(folder, arms)
    for run in runs.runs:
        name = NAMES[int(run.arm[3:])]
        object.__setattr__(run, "arm", name)
        run.axes.update(norm=name, size=run.seed)
    return compare(runs)


def drawn(figure):
    with matplotlib.rc_context(SVG), warnings.catch_warnings():
        warnings.simplefilter("error")
        file = io.StringIO()
        figure.savefig(file, format="svg")
    texts = re.findall(r"<text[^>]*>(.*?)</text>", file.getvalue(), re.DOTALL)
    return [unescape(re.sub(r"</?tspan[^>]*>", "", text)).replace("\u200b", "") for text in texts]


@pytest.mark.parametrize("kind", ["curves", "price", "beside"])
def test_pictures_show_it_as_it_is(comparison, kind):
    texts = drawn(KINDS[kind](comparison))
    for name in NAMES:
        shown = name.replace("\n", r"\n")
        assert any(text.strip() == shown for text in texts), name


@pytest.mark.parametrize("kind", ["differences", "values", "heat", "over", "profile"])
def test_every_picture_is_drawn(comparison, kind):
    options = {"axis": "size"} if kind == "profile" else {}
    assert any("cost $" in text for text in drawn(KINDS[kind](comparison, **options)))


def test_the_page_shows_it_as_it_is(comparison):
    for page in (to_html(comparison, "normlab report"), to_fragment(comparison)):
        text = unescape(re.sub(r"<[^>]*>", "", page))
        assert all(name in text for name in NAMES)
        assert "<i>" not in page


def test_text_shows_it_in_one_line(comparison):
    lines = to_text(comparison).splitlines()
    assert sum(line.startswith(r"two\nlines ") for line in lines) == 1


def test_markdown_shows_it_as_it_is(comparison):
    text = to_markdown(comparison, "normlab report")
    table = [line for line in text.splitlines() if line.startswith("| ") and " of " not in line]
    assert len({line.count(" | ") for line in table[:8]}) == 1
    assert r"\$x\$" in text and r"\\frac" in text and r"\<i>" in text and r"two\\nlines" in text
    assert not re.search(r"(?<!\\)\$|(?<!\\)<i>", text.partition("## What differs")[0])
