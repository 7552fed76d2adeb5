"""Every example and every link in the README and on the pages of docs/ works.

The Python of a page runs from the top in a fresh process, in its own folder. YAML is a config, or
sections of one. Every command of normlab exists, and so do its options. Every relative link leads
to a file and a heading.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import jax
import pytest
import typer
import yaml

from normlab.cli import app
from normlab.configs.experiment import load_experiment

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "experiments" / "README.md"]
FENCE = re.compile(r"^ *```([^\n]*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(normlab [^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
CHECKED = {"python", "yaml", "console"}
INCLUDED = ("CHANGELOG", "CONTRIBUTING", "SECURITY")
DIRECTIVES = {"{toctree}", *(f"{{include}} ../{name}.md" for name in INCLUDED)}

LEARNED = """
if "fitted" in globals():
    assert fitted.history[-1]["test_accuracy"] > 0.6, fitted
"""
"""A page whose example trains a network ends with one that has learned."""

WHOLE = {
    "data": {"name": "shapes", "validation": 100},
    "model": {"name": "resnet", "depth": 8},
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "train": {"epochs": 1, "batch_size": 32},
    "sweep": {"norm": ["batch_norm", "identity"], "seed": "0..1"},
}
"""A config, for a page that shows sections of one."""


def fences(page: Path, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall(page.read_text("utf-8")) if kind == language]


def pages_with(language: str, thorough: Collection[str] = ()) -> list:
    return [
        pytest.param(
            page, id=page.stem, marks=[pytest.mark.thorough] if page.stem in thorough else []
        )
        for page in PAGES
        if fences(page, language)
    ]


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.stem)
def test_every_block_of_a_page_is_of_a_kind_that_is_checked(page):
    text = page.read_text("utf-8")
    assert {kind for kind, _ in FENCE.findall(text)} <= CHECKED | DIRECTIVES
    assert len(re.findall(r"^ *(?:```|~~~)", text, re.MULTILINE)) == 2 * len(FENCE.findall(text))


@pytest.mark.parametrize("page", pages_with("python", thorough={"notebooks"}))
def test_the_python_of_a_page_runs(page, tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "page.py").write_text("\n".join([*fences(page, "python"), LEARNED]))
    done = subprocess.run(
        [sys.executable, "-W", "error", "page.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def promotion_as_users_have_it():
    """Optax's schedules mix dtypes, which the tests' own setting forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.usefixtures("promotion_as_users_have_it")
@pytest.mark.parametrize("page", pages_with("yaml"))
def test_the_yaml_of_a_page_is_a_config(page, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))  # the folder is forgotten afterwards
    for text in fences(page, "python"):
        for name in re.findall(r"# in (\w+\.py)", text):
            (tmp_path / name).write_text(text)
        if "# makes the files" in text:
            subprocess.run([sys.executable, "-c", text], cwd=tmp_path, check=True)
    for text in fences(page, "yaml"):
        sections = yaml.safe_load(text)
        own = {key: value for key, value in WHOLE.items() if key not in sections}
        if "schedule" in sections and "optimizer" not in sections:
            own["optimizer"] = {"name": "sgd"}
        if "norm" in sections and "sweep" in own:  # which would put others in its place
            own["sweep"] = {"seed": "0..1"}
        file = tmp_path / "config.yaml"
        file.write_text(f"{text}\n{yaml.safe_dump(own) if own else ''}")
        load_experiment(file)


def lines(page: Path):
    """The commands in a page's blocks, without comments."""
    for text in fences(page, "console"):
        for line in text.replace("\\\n", " ").splitlines():
            for command in line.partition("#")[0].split("&&"):
                yield shlex.split(command)


def commands(page: Path):
    """The arguments of every normlab command, in blocks and between backticks."""
    inline = (" ".join(found.split()) for found in INLINE.findall(page.read_text("utf-8")))
    for words in [*lines(page), *map(shlex.split, inline)]:
        if words[:1] == ["normlab"]:
            yield words[1:]


@pytest.mark.parametrize("page", pages_with("console"))
def test_the_modules_that_a_page_runs_exist(page):
    for words in lines(page):
        if words[:2] == ["python", "-m"]:
            assert (ROOT / words[2].replace(".", "/")).with_suffix(".py").is_file(), words[2]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_exist(page):
    for words in commands(page):
        command, found = typer.main.get_command(app), []
        while words and words[0] in getattr(command, "commands", {}):
            found.append(words[0])
            command = command.commands[words.pop(0)]
        assert found, f"normlab has no command {words[0]}"
        options = {name for option in command.params for name in option.opts}
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= options, f"normlab {' '.join(found)} has no {given - options}"


def anchors(page: Path) -> set[str]:
    """The names that a link may give after `#`: of headings, as on GitHub, and of `<a id=...>`."""
    text = FENCE.sub("", page.read_text("utf-8"))
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.stem)
def test_every_relative_link_of_a_page_leads_somewhere(page):
    for link in LINK.findall(page.read_text("utf-8")):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"
