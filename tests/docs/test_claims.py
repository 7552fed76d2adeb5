"""docs/claims.md names tests and configs that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")


def names_of_tests(file):
    """Return the names of the tests in a file, none if it does not exist."""
    path = ROOT / file
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_test_that_the_page_names_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 20
    assert not [f"{file}::{name}" for file, name in named if name not in names_of_tests(file)]


def test_every_config_that_the_page_names_exists():
    named = re.findall(r"`(configs/\w+\.yaml)`", PAGE)
    assert len(named) > 5
    assert not [file for file in named if not (ROOT / file).is_file()]
