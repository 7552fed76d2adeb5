"""A normaliser from a user's own file is folded, recalibrated, adapted, frozen, explained, swept.

Each value is checked against float64 numpy, which knows nothing of the library.
"""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.adapters.folding import fold
from normlab.adapters.freezing import freeze
from normlab.adapters.statistics import adapt, recalibrate
from normlab.configs.experiment import load_experiment
from normlab.engine.engine import Engine
from normlab.models.plain import MLP
from normlab.models.slots import NORM_STATE
from tests.shared.command_line import TINY, normlab
from tests.shared.my_norm import Tempered
from tests.shared.small_runs import promotion_as_users_have_it

__all__ = ["promotion_as_users_have_it"]

X = np.random.default_rng(0).normal(2, 3, (7, 5))
TEST = np.random.default_rng(1).normal(-1, 2, (4, 5))
NORM = Tempered(eps=1e-3)
MODEL = MLP(norm=NORM, classes=3, widths=(6,), activation="relu")


@pytest.fixture(scope="module")
def variables():
    """Variables with values that are neither one nor zero, so that a swapped pair shows."""
    draw = np.random.default_rng(2)
    shapes = jax.eval_shape(
        lambda: MODEL.init(jax.random.key(0), jnp.asarray(X, "f4"), train=False)
    )

    def one(path, leaf):
        positive = path[-1].key in ("scale", "variance")
        values = draw.uniform(0.5, 2, leaf.shape) if positive else draw.normal(0, 1, leaf.shape)
        return jnp.asarray(values, jnp.float32)

    return jax.tree_util.tree_map_with_path(one, shapes)


def wide(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def parts(variables):
    """The layers' arrays in float64: first dense, normaliser, its state, head."""
    params, state = wide(variables["params"]), wide(variables[NORM_STATE])
    (norm,), (kept,) = (
        [leaf["norm"] for leaf in jax.tree.leaves(tree, is_leaf=lambda t: "norm" in t)
         if "norm" in leaf]
        for tree in (params, state)
    )  # fmt: skip
    return params["Dense_0"], norm, kept, params["Dense_1"]


def by_numpy(variables, x, moments=None):
    """The logits by the equations, with the state's moments or with others."""
    first, norm, kept, head = parts(variables)
    hidden = x @ first["kernel"] + first.get("bias", 0)
    mean, variance = (kept["mean"], kept["variance"]) if moments is None else moments(hidden)
    z = (hidden - mean) * norm["scale"] * (variance + 1e-3) ** -0.25 + norm["bias"]
    return np.maximum(z, 0) @ head["kernel"] + head["bias"], hidden


def logits(model, variables, x):
    return jax.jit(lambda v: model.apply(v, jnp.asarray(x, "f4"), train=False))(variables)


def test_it_folds(variables):
    folded = fold(MODEL, variables, jnp.asarray(X, "f4"))
    assert not folded.left and NORM_STATE not in folded.variables
    found = logits(folded.model, folded.variables, X)
    np.testing.assert_allclose(found, by_numpy(variables, X)[0], rtol=1e-4, atol=1e-4)


def test_it_is_recalibrated(variables):
    new = recalibrate(MODEL, variables, [jnp.asarray(X[:3], "f4"), jnp.asarray(X[3:], "f4")])
    hidden = by_numpy(variables, X)[1]
    kept = parts(new)[2]
    np.testing.assert_allclose(kept["mean"], hidden.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(kept["variance"], hidden.var(axis=0), rtol=1e-4)


def test_it_is_adapted(variables):
    new, (_, _, old, _) = (
        adapt(MODEL, variables, jnp.asarray(TEST, "f4"), prior=12),
        parts(variables),
    )
    hidden = by_numpy(variables, TEST)[1]
    kept = parts(new)[2]
    for name, of_test in (("mean", hidden.mean(axis=0)), ("variance", hidden.var(axis=0))):
        expected = (12 * old[name] + 4 * of_test) / 16
        np.testing.assert_allclose(kept[name], expected, rtol=1e-4, atol=1e-4)


def test_it_is_frozen(variables):
    model = freeze(MODEL)
    x = jnp.asarray(TEST, "f4")
    y, after = model.apply(variables, x, train=True, mutable=[NORM_STATE])
    jax.tree.map(np.testing.assert_array_equal, after[NORM_STATE], variables[NORM_STATE])
    np.testing.assert_allclose(y, by_numpy(variables, TEST)[0], rtol=1e-4, atol=1e-4)


def test_an_unfrozen_training_step_is_another(variables):
    """The frozen one is not the same by chance."""
    y, after = MODEL.apply(variables, jnp.asarray(TEST, "f4"), train=True, mutable=[NORM_STATE])
    own = by_numpy(variables, TEST, lambda hidden: (hidden.mean(axis=0), hidden.var(axis=0)))
    np.testing.assert_allclose(y, own[0], rtol=1e-4, atol=1e-4)
    assert not np.allclose(y, by_numpy(variables, TEST)[0], atol=0.1)
    kept, old = parts({**variables, **after})[2], parts(variables)[2]
    np.testing.assert_allclose(kept["mean"], (old["mean"] + own[1].mean(axis=0)) / 2, rtol=1e-4)


SHARED = Path(__file__).parents[1] / "shared"


def test_it_is_explained(tmp_path):
    path = os.pathsep.join([str(SHARED), os.environ.get("PYTHONPATH", "")])
    done = normlab("explain", "my_norm:Tempered", cwd=tmp_path, PYTHONPATH=path, COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert "each channel by itself, over the examples" in done.stdout
    assert "the running mean and variance" in done.stdout
    assert "after 2 steps" in done.stdout, "the half of a change is in after one step"
    assert "mean 0, variance 1" in done.stdout
    assert "0.001: values of 0.032 and -0.032 in turn come out as 0.15 at most" in done.stdout


def test_it_is_swept_from_a_yaml_file(tmp_path, monkeypatch):
    """Its arm is trained beside ours, and its field is an axis of the sweep."""
    monkeypatch.syspath_prepend(str(SHARED))
    own = "[{name: my_norm:Tempered, power: 0.5}, {name: my_norm:Tempered}, batch_norm]"
    file = tmp_path / "own.yaml"
    file.write_text(TINY.replace("[identity, batch_norm]", own))
    experiment = load_experiment(file)
    runs = Engine(experiment, tmp_path / "runs", lambda event: None).run_all()
    assert len(experiment.runs) == 3 and len({run.hash for run in experiment.runs}) == 3
    assert runs is not None
    for run in experiment.runs:
        (folder,) = (tmp_path / "runs").rglob(f"*{run.hash}*")
        assert '"done"' in (folder / "status.json").read_text()


def test_its_swept_arm_has_the_values_of_the_same_arithmetic(tmp_path, monkeypatch):
    """With the root it is batch norm, and trains to batch norm's losses; with another power not."""
    monkeypatch.syspath_prepend(str(SHARED))
    like = "{name: my_norm:Tempered, power: 0.5, momentum: 0.9, eps: 1e-5}"
    file = tmp_path / "own.yaml"
    own = f"[{like}, {{name: my_norm:Tempered, momentum: 0.9, eps: 1e-5}}, batch_norm]"
    file.write_text(TINY.replace("[identity, batch_norm]", own))
    outcome = Engine(load_experiment(file), tmp_path / "runs", lambda event: None).run_all()
    same, other, ours = ([row["train_loss"] for row in r.metrics] for r in outcome.runs.records())
    np.testing.assert_allclose(same, ours, rtol=1e-4)
    assert np.abs(np.subtract(other, ours)).max() > 1e-3
