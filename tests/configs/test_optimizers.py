"""Optimisers and schedules of optax.contrib and of a person's own, by name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from normlab.configs import build
from normlab.configs.document import ConfigError
from normlab.configs.experiment import load_experiment
from normlab.configs.optax_names import NO_OPTIMIZERS, OPTIMIZERS, REFUSED, UNSTORABLE
from normlab.store.loading import load
from tests.shared.small_runs import TINY
from tests.shared.thorough import mostly_thorough

OWN = """
import optax

def make(learning_rate, momentum: float = 0.5):
    return optax.sgd(learning_rate, momentum=momentum)

def falling(start: float, decay_steps: int):
    return optax.linear_schedule(start, 0.0, decay_steps)
"""


@pytest.fixture
def with_optimizer(config):
    def write(optimizer, schedule="null"):
        lines = [line for line in TINY.splitlines() if not line.startswith(("optim", "sched"))]
        lines += [f"optimizer: {optimizer}", f"schedule: {schedule}"]
        return config("\n".join(lines))

    return write


CONTRIB = [name for name, entry in OPTIMIZERS.entries().items() if "contrib" in entry.module]


@pytest.mark.parametrize("name", CONTRIB)
def test_every_optimiser_of_contrib_takes_a_step(with_optimizer, name):
    (run,) = load_experiment(with_optimizer(f"{{name: {name}, learning_rate: 0.01}}")).runs
    build.optimizer(run.sections)  # reading the config has traced its update


SOME = ["muon", "sgd", "noisy_sgd", "galore", "prodigy"]


@pytest.mark.filterwarnings("ignore:`optimistic_adam` is deprecated")  # which optax says
@pytest.mark.parametrize("name", mostly_thorough(OPTIMIZERS.entries(), SOME))
def test_every_optimiser_takes_two_steps_of_a_network_and_moves_its_weights(with_optimizer, name):
    (run,) = load_experiment(with_optimizer(f"{{name: {name}, learning_rate: 0.01}}")).runs
    program, x = build.program(run.sections), jnp.ones((4, 8, 8, 3))
    params, _ = program.network.init(jax.random.key(0), jax.ShapeDtypeStruct(x.shape, x.dtype))
    grads = jax.tree.map(lambda leaf: 0.1 * jnp.ones_like(leaf) + 0.01 * leaf, params)

    @jax.jit
    def step(params, state):
        updates, state = program.optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    once, state = step(params, program.optimizer.init(params))
    twice, _ = step(once, state)
    for before, after in ((params, once), (once, twice)):
        pairs = list(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
        assert all(np.isfinite(b).all() and b.dtype == a.dtype for a, b in pairs)
    moved = [
        np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (params, twice)), strict=True)
    ]
    assert max(moved) > 0


@pytest.mark.parametrize("name", UNSTORABLE)
def test_a_run_keeps_a_state_with_keys_or_empty_arrays(with_optimizer, make, name):
    """Checkpoints hold neither, and such runs failed at the first of them."""
    assert not make(with_optimizer(f"{{name: {name}, learning_rate: 0.01}}")).failed


def test_every_name_of_contrib_is_offered_or_refused_with_a_reason_or_is_no_optimiser():
    names = {n for n in dir(optax.contrib) if n.islower() and not n.startswith("_")}
    names = {n for n in names if callable(getattr(optax.contrib, n))}
    left = names - set(OPTIMIZERS.entries()) - set(REFUSED)
    assert all(n.startswith(NO_OPTIMIZERS) for n in left), left


def test_a_projection_cannot_go_with_a_schedule_free_optimiser(with_optimizer):
    file = with_optimizer("{name: schedule_free_sgd, learning_rate: 0.1}")
    with pytest.raises(ConfigError, match=r"train: train\.project cannot go with a schedule-free"):
        load_experiment(file, ("train.project=weights",))


def test_a_projection_is_another_run_and_none_has_the_hash_that_it_had(with_optimizer):
    file = with_optimizer("{name: muon, learning_rate: 0.1}")
    given = ((), ("train.project=null",), ("train.project=weights",))
    plain, spelt, other = (load_experiment(file, more).runs[0].hash for more in given)
    assert plain == spelt != other


@pytest.mark.parametrize("name", REFUSED)
def test_one_that_needs_more_than_gradients_is_refused_with_the_reason(with_optimizer, name):
    with pytest.raises(ConfigError) as caught:
        load_experiment(with_optimizer(f"{{name: {name}, learning_rate: 0.01}}"))
    assert f"optimizer {name} cannot be used here: {REFUSED[name]}" in str(caught.value)


def test_a_persons_own_optimiser_and_schedule_lie_beside_the_config(
    with_optimizer, make, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_optimiser.py").write_text(OWN)
    schedule = "{name: 'own_optimiser:falling', start: 0.1}"
    own = with_optimizer("{name: 'own_optimiser:make'}", schedule)
    (run,) = load_experiment(own).runs
    assert run.sections["optimizer"] == {"name": "own_optimiser:make", "momentum": 0.5}
    assert run.sections["schedule"]["decay_steps"] == 18  # the length of the run
    assert list(run.own_code) == ["own_optimiser"]
    assert not make(own).failed
    plain = "{name: sgd, momentum: 0.5}", "{name: linear_schedule, init_value: 0.1, end_value: 0.0}"
    other = with_optimizer(*plain)
    other = other.rename(other.with_name("other.yaml"))
    assert not make(other).failed
    (one,), (two,) = (load(tmp_path / "runs" / name) for name in ("experiment", "other"))
    timeless = [{k: v for k, v in row.items() if k != "train_seconds"} for row in one.metrics]
    assert timeless == [{k: v for k, v in r.items() if k != "train_seconds"} for r in two.metrics]


def test_what_is_no_optimiser_is_told_in_a_sentence(with_optimizer, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "no_optimiser.py").write_text("def make(learning_rate):\n    return 3\n")
    with pytest.raises(ConfigError) as caught:
        load_experiment(with_optimizer("{name: 'no_optimiser:make', learning_rate: 0.1}"))
    assert "optimizer: optax cannot use it: AttributeError" in str(caught.value)


def keys_of(file, seed, *overrides):
    (run,) = load_experiment(file, (f"seed={seed}", *overrides)).runs
    state = build.program(run.sections).init(seed, (8, 8, 3)).opt_state
    return [leaf.tolist() for leaf in jax.tree.leaves(state) if leaf.dtype == np.uint32]


def test_noisy_sgd_has_the_noise_of_the_runs_seed_unless_the_config_gives_one(with_optimizer):
    file = with_optimizer("{name: noisy_sgd, learning_rate: 0.1}")
    one, again, other = (keys_of(file, seed) for seed in (1, 1, 2))
    assert one == again != other and len(one) == 1
    fixed = with_optimizer("{name: noisy_sgd, learning_rate: 0.1, seed: 5}")
    data = jax.random.key_data(jax.random.key(5)).tolist()
    assert keys_of(fixed, 1) == keys_of(fixed, 2) == [data]
