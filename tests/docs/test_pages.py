"""Every example on the README and on the pages of docs/ does what it says.

The Python of a page runs from the top in a fresh process, in a folder of its own. YAML is a config,
or sections of one. A command of normlab's exists, and so do its options.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import typer
import yaml

from normlab.cli import app
from normlab.configs.experiment import load_experiment

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)

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


def pages_with(language: str) -> list:
    return [pytest.param(page, id=page.stem) for page in PAGES if fences(page, language)]


@pytest.mark.parametrize("page", pages_with("python"))
def test_the_python_of_a_page_runs(page, tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "page.py").write_text("\n".join(fences(page, "python")))
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
def test_the_yaml_of_a_page_is_a_config(page, tmp_path):
    for text in fences(page, "yaml"):
        sections = yaml.safe_load(text)
        own = {key: value for key, value in WHOLE.items() if key not in sections}
        if "schedule" in sections and "optimizer" not in sections:
            own["optimizer"] = {"name": "sgd"}
        file = tmp_path / "config.yaml"
        file.write_text(f"{text}\n{yaml.safe_dump(own) if own else ''}")
        load_experiment(file)


def commands(page: Path):
    for text in fences(page, "console"):
        for line in text.replace("\\\n", " ").splitlines():
            for command in line.partition("#")[0].split("&&"):
                if command.split()[:1] == ["normlab"]:
                    yield shlex.split(command)[1:]


@pytest.mark.parametrize("page", pages_with("console"))
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
