"""A run on several devices has the numbers of a run on one."""

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from normlab.data.augment import Flip
from normlab.engine.probe_rows import Watch
from normlab.errors import UserError
from normlab.models.plain import MLP, Convnet
from normlab.norms import BatchNorm, LayerNorm
from normlab.probes import Activations, Gradients
from normlab.training import mesh as meshes
from normlab.training.compiled import Compiled
from normlab.training.fit import fit
from normlab.training.host_data import HostData, placed
from normlab.training.mesh import Mesh
from normlab.training.program import Program
from normlab.training.recipe import Recipe
from tests.norms.conftest import NAMES, make
from tests.shared.thorough import mostly_thorough

from .conftest import CLASSES, lenient

STEPS, SEED = 20, 3
FEW = ["batch_norm", "batch_renorm", "group_norm", "online_norm", "power_norm"]


@pytest.fixture(scope="module")
def losses(device_data):
    """Train a network of one convolution for 20 steps; return the loss before each."""

    def train(norm, mesh=None, data=device_data, **recipe):
        settings = Recipe(**{"epochs": 5, "batch_size": 16, "eval_batch_size": 8, **recipe})
        model = Convnet(norm=norm, classes=CLASSES, widths=(8,), layers=1)
        optimizer = lenient(optax.sgd(0.05, momentum=0.9))
        compiled = Compiled(Program(model, optimizer, settings, (Flip(),), mesh or Mesh()), data)
        state, found = compiled.init(SEED), []
        per_epoch = settings.steps_per_epoch(compiled.train_examples)
        for step in range(STEPS):
            order = compiled.order(SEED, step // per_epoch)
            state, loss = compiled.step(state, order, SEED, step)
            found.append(loss.item())
        return np.array(found)

    return train


@pytest.mark.parametrize("name", mostly_thorough(NAMES, FEW))
def test_devices_and_microbatches_change_no_loss(losses, name, request):
    norm = make(name, groups=2)
    wanted = losses(norm)
    assert np.isfinite(wanted).all() and np.ptp(wanted) > 1e-3
    if request.config.getoption("--thorough"):
        cases = [(devices, parts) for devices in (1, 2, 4, 8) for parts in (1, 4)][1:]
    else:
        cases = [(2, 4), (8, 1)]
    for devices, parts in cases:
        found = losses(norm, Mesh(devices), accumulate=parts, statistics="whole")
        np.testing.assert_allclose(found, wanted, rtol=1e-5, err_msg=f"{devices}, {parts}")


def test_statistics_of_each_device_are_those_of_microbatches_and_others_than_the_whole(losses):
    """Here the reference is accumulation, whose microbatches know nothing of each other."""
    norm = BatchNorm()
    alone = losses(norm, accumulate=4)
    local = losses(norm, Mesh(4), statistics="local")
    np.testing.assert_allclose(local, alone, rtol=1e-5)
    assert np.abs(local / losses(norm) - 1).max() > 1e-3
    both = losses(norm, Mesh(2), statistics="local", accumulate=2)
    np.testing.assert_allclose(both, alone, rtol=1e-5)


def test_fewer_devices_give_the_same_local_statistics(losses, monkeypatch):
    wanted = losses(BatchNorm(), Mesh(8), statistics="local")
    monkeypatch.setattr(meshes, "_fewest_devices", lambda: 3)
    assert Mesh(8).devices == 2
    np.testing.assert_allclose(losses(BatchNorm(), Mesh(8), statistics="local"), wanted, rtol=1e-5)


def test_a_batch_fed_from_the_host_is_cut_too(losses, data, monkeypatch):
    wanted = losses(LayerNorm())
    monkeypatch.setenv("NORMLAB_DATA_MEMORY", "1kB")
    on_host = placed(data, Mesh(4).spread())
    assert isinstance(on_host, HostData)
    np.testing.assert_allclose(losses(LayerNorm(), Mesh(4), on_host), wanted, rtol=1e-5)


@pytest.fixture(scope="module")
def fitted(data):
    def train(mesh, **recipe):
        settings = Recipe(**{"epochs": 1, "batch_size": 16, "metrics": ("auc",), **recipe})
        model = MLP(norm=BatchNorm(), classes=CLASSES, widths=(8,))
        with jax.numpy_dtype_promotion("standard"):
            return fit(model, data, optax.adam(1e-2), settings, mesh=mesh)

    return train


def rows(fitted):
    return [[v for k, v in row.items() if "seconds" not in k] for row in fitted.history]


def test_large_parameters_are_cut_along_their_largest_axis_and_give_the_same(fitted):
    one, cut = fitted(None, ema=0.9), fitted(Mesh(4, "sharded"), ema=0.9)
    kernel = cut.state.params["Dense_0"]["kernel"]
    assert kernel.sharding.spec == P("data")
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(4, 8)}
    inner = jax.tree.leaves(cut.state.opt_state)
    assert sum(leaf.sharding.spec == P("data") for leaf in inner) >= 3  # two moments, one average
    np.testing.assert_allclose(rows(cut), rows(one), rtol=1e-5)


def test_parameters_that_do_not_fit_are_cut_without_being_asked(fitted, monkeypatch):
    monkeypatch.setattr(meshes, "memory", lambda: 10_000)
    whole = fitted(Mesh(2)).state.params["Dense_0"]["kernel"]
    assert whole.sharding.spec == P("data")
    monkeypatch.setattr(meshes, "memory", lambda: 10**12)
    assert fitted(Mesh(2)).state.params["Dense_0"]["kernel"].sharding.spec == P()


def test_a_last_batch_of_seven_examples_and_one_counts_each_once(fitted):
    """Of 22 examples by 14 the last batch has seven on one device, one and padding on the other."""
    one, two = (fitted(mesh, eval_batch_size=14) for mesh in (None, Mesh(2)))
    np.testing.assert_allclose(rows(two), rows(one), rtol=1e-5)
    fifteen = fitted(Mesh(2), eval_batch_size=15)  # which two devices do not divide
    np.testing.assert_allclose(rows(fifteen), rows(one), rtol=1e-5)


def test_a_batch_that_the_devices_do_not_divide_is_refused(fitted):
    with pytest.raises(UserError, match=r"divisor of the 16 .* got 3"):
        fitted(Mesh(3))
    with pytest.raises(UserError, match=r"divisor of the 4 .* got 8"):
        fitted(Mesh(8), accumulate=4)


@pytest.mark.skipif(
    jax.__version_info__ < (0, 12), reason="XLA of jax 0.10.2 keeps what is to be computed again"
)
def test_whole_statistics_of_microbatches_take_less_memory_than_one_batch(device_data):
    """XLA's own account of a step of a network whose activations are most of its memory."""

    def bytes_of(**recipe):
        settings = Recipe(epochs=1, batch_size=64, **recipe)
        model = Convnet(norm=BatchNorm(), classes=CLASSES, widths=(16,), layers=9)
        return Compiled(Program(model, optax.sgd(0.1), settings), device_data).peak_bytes

    assert bytes_of(accumulate=4, statistics="whole") < 0.7 * bytes_of()


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto], ids=["explicit", "auto"])
def test_a_mesh_of_the_caller_changes_nothing(fitted, kind):
    wanted = fitted(None)
    with jax.set_mesh(jax.make_mesh((4,), ("mine",), axis_types=(kind,))):
        found, spread = fitted(None), fitted(Mesh(2))
    np.testing.assert_allclose(rows(found), rows(wanted), rtol=1e-5)
    np.testing.assert_allclose(rows(spread), rows(wanted), rtol=1e-5)


def test_probes_see_the_same_on_several_devices(data):
    seen = []
    for mesh in (None, Mesh(4, "sharded")):
        watch = Watch([Gradients(), Activations()], examples=32)
        model = MLP(norm=BatchNorm(), classes=CLASSES, widths=(8,))
        settings = Recipe(epochs=1, batch_size=16)
        fit(model, data, optax.sgd(0.1), settings, mesh=mesh, look_at=[0, 4], emit=watch)
        seen.append(watch.rows)
    assert [row["quantity"] for row in seen[0]] == [row["quantity"] for row in seen[1]]
    for one, other in zip(*seen, strict=True):
        np.testing.assert_allclose(
            np.float64(other["values"]), np.float64(one["values"]), rtol=1e-4, atol=1e-6
        )
