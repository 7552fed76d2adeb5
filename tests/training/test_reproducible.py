"""The same seed gives bitwise the same run, here and in another process."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from normlab.training.fit import Loop
from normlab.training.state import Clock
from tests.shared.thorough import mostly_thorough
from tests.shared.waiting import GENEROUS

SCRIPT = """
import hashlib
import jax, numpy as np, optax
from normlab.data.augment import Crop, Flip
from normlab.data.dataset import Dataset, Split
from normlab.models.plain import Convnet
from normlab.norms import BatchNorm
from normlab.training.fit import fit
from normlab.training.recipe import Recipe

noise = np.random.default_rng(0)
images = noise.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
split = Split(images, noise.integers(0, 3, 40, dtype=np.int32))
fitted = fit(
    Convnet(norm=BatchNorm(), classes=3, widths=(4,), layers=1),
    Dataset("noise", split, split, tuple("abc")),
    optax.sgd(0.1, momentum=0.9),
    Recipe(epochs=3, batch_size=16, seed=SEED),
    augmentations=(Flip(), Crop(padding=2)),
)
for row in fitted.history:
    del row["train_seconds"]
leaves = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(fitted.state))
print(hashlib.sha256(leaves + repr(fitted.history).encode()).hexdigest())
"""


@pytest.fixture
def compiled_anew(monkeypatch):
    """Disable the session's cache of programs, here and in child processes."""
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


@pytest.mark.usefixtures("as_users_compile", "compiled_anew")
@pytest.mark.thorough
def test_two_processes_are_bitwise_the_same_run():
    children = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT.replace("SEED", seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in ("7", "7")
    ]
    digests = []
    for child in children:
        out, errors = child.communicate(timeout=GENEROUS)
        assert child.returncode == 0, errors
        digests.append(out.strip())
    assert digests[0] == digests[1]
    assert len(digests[0]) == 64


@pytest.mark.usefixtures("as_users_compile", "compiled_anew")
@pytest.mark.parametrize("accumulate", mostly_thorough([1, 2], [2]))
def test_two_compilations_are_bitwise_the_same_run(compiled, accumulate):
    ends = []
    for _ in range(2):
        made = compiled(accumulate=accumulate, clip=0.5, label_smoothing=0.1)
        ends.append(Loop(made, 9).run(made.init(9), Clock()).state)
    jax.tree.map(np.testing.assert_array_equal, *ends)


def test_a_bfloat16_network_learns_with_float32_parameters_and_statistics(compiled):
    made, wide = compiled(dtype="bfloat16", epochs=10), compiled(epochs=10)
    fitted = Loop(made, 9).run(made.init(9), Clock())
    expected = Loop(wide, 9).run(wide.init(9), Clock())
    for part in (fitted.state.params, fitted.state.norm_state, fitted.state.opt_state):
        assert {leaf.dtype for leaf in jax.tree.leaves(part)} == {np.dtype("float32")}
    losses = [row["train_loss"] for row in fitted.history]
    assert losses[-1] < 0.6 * losses[0]
    assert losses[-1] != expected.history[-1]["train_loss"]
    assert losses[-1] == pytest.approx(expected.history[-1]["train_loss"], abs=0.1)
