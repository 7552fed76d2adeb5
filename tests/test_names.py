"""No file above `norms/` names a normaliser's class: the library asks `Facts` and the contract.

A new file in `normlab/norms` is then served by every part of the library, and so is a normaliser
in a file of a user's own.
"""

import ast
from pathlib import Path

from normlab.catalogue import NORMS

ROOT = Path(__file__).parents[1] / "normlab"
CLASSES = {entry.attribute for entry in NORMS.entries().values()}
FLAX = {"nn", "nnx"}
"""Modules of flax, whose own layers have names such as ours."""


def may_name(place: str) -> bool:
    """Return whether a file may name classes: other libraries' layers, and entries."""
    return place.startswith(("norms/", "dialects/")) or place == "adapters/flax_layers.py"


def named(source: str) -> set[str]:
    """The normaliser classes that a source imports, uses, or writes as a string."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names} & CLASSES
        elif isinstance(node, ast.Name):
            found |= {node.id} & CLASSES
        elif isinstance(node, ast.Attribute):
            of_flax = isinstance(node.value, ast.Name) and node.value.id in FLAX
            found |= set() if of_flax else {node.attr} & CLASSES
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} & CLASSES
    return found


def test_no_file_above_the_normalisers_names_one():
    places = {file.relative_to(ROOT).as_posix(): file for file in sorted(ROOT.rglob("*.py"))}
    found = {
        place: names
        for place, file in places.items()
        if not may_name(place) and (names := named(file.read_text("utf-8")))
    }
    assert not found, "ask the normaliser's Facts, or a method of normlab.core.OptionalMethods"


def test_a_name_would_be_found():
    assert named("from normlab.norms.batch import BatchNorm as Other") == {"BatchNorm"}
    assert named("def f(x):\n    return isinstance(x, norms.EvoNormB0)") == {"EvoNormB0"}
    assert named("known = ('DebiasedBatchNorm',)") == {"DebiasedBatchNorm"}
    assert named("import flax.linen as nn\nnn.BatchNorm(momentum=0.9)") == set()
    assert named('def f():\n    """>>> BatchNorm()"""') == set()
    assert not may_name("training/fit.py") and may_name("norms/batch.py")
