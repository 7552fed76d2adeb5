"""normlab as it is imported in a notebook."""

import ast
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import normlab
from normlab.errors import UserError
from tests.shared.command_line import TINY


def test_functions_take_arrays_and_give_arrays():
    x = jax.random.normal(jax.random.key(0), (4, 5, 5, 8)) + 3
    for name in ("batch_norm", "layer_norm", "layer_norm_image", "instance_norm", "rms_norm"):
        assert getattr(normlab, name)(x).shape == x.shape
    assert normlab.group_norm(x, groups=2).shape == x.shape
    assert normlab.affine(x, 2 * jnp.ones(8)).sum() == pytest.approx(2 * float(x.sum()), rel=1e-5)


def test_every_promised_name_is_there_and_others_are_not():
    tree = ast.parse(Path(normlab.__file__).read_text("utf-8"))
    for_editors = next(node for node in tree.body if isinstance(node, ast.If))
    promised = [alias.name for line in for_editors.body for alias in line.names]
    assert sorted(promised) == dir(normlab) and len(promised) > 30
    assert all(getattr(normlab, name) is not None for name in promised)
    with pytest.raises(AttributeError, match="no attribute 'batchnorm'"):
        normlab.batchnorm  # noqa: B018


def test_importing_normlab_imports_nothing_heavy():
    code = "import sys, normlab; sys.exit(bool({'jax', 'numpy', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_run_load_and_compare(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    runs = normlab.run("tiny.yaml", train__epochs=1, seed=3)
    assert [run.state for run in runs] == ["done", "done"]
    assert all(run.config["train"]["epochs"] == 1 for run in runs)
    assert all(run.config["train"]["seed"] == 3 for run in runs)
    assert [str(path) for path in Path("runs").iterdir()] == ["runs/tiny+epochs=1"]
    comparison = normlab.compare(normlab.load("runs/tiny+epochs=1"), baseline="identity")
    assert repr(comparison).startswith("<Comparison of 2 arms by final(test_accuracy): Not decided")
    assert len(repr(comparison)) < 300 and len(repr(comparison.arms[0])) < 100
    assert "identity (baseline)" in str(comparison)
    assert "<table>" in comparison._repr_html_()
    assert ": </p>" not in comparison.runs._repr_html_()  # it has no question
    with pytest.raises(UserError, match="'epoch'"):
        normlab.run("tiny.yaml", train__epoch=1)


def test_describe_shows_an_entry_by_name_class_or_object():
    from normlab.norms import GroupNorm

    text = normlab.describe("group_norm")
    assert text.startswith("group_norm (normaliser)") and repr(text) == str(text)
    assert normlab.describe(GroupNorm) == normlab.describe(GroupNorm(groups=2)) == text
    assert text._repr_html_().startswith("<pre") and "group_norm(x" in text
    with pytest.raises(UserError, match="did you mean 'group_norm'"):
        normlab.describe("groupnorm")
