"""`normlab.show`: who shares statistics, as measured, against what the papers say."""

import jax.numpy as jnp
import numpy as np
import pytest

import normlab
from normlab.catalogue import NORMS
from normlab.errors import UserError
from normlab.interface.sharing import described_norm, sharing
from normlab.norms import GroupNorm
from normlab.reports.figures.sharing import in_words

ALL = slice(None)
AXES = {  # of (N, H, W, C), for the output at example 1, position (1, 1), channel 2
    "batch_norm": (ALL, ALL, ALL, 2),
    "instance_norm": (1, ALL, ALL, 2),
    "layer_norm": (1, 1, 1, ALL),
    "layer_norm_image": (1, ALL, ALL, ALL),
    "rms_norm": (1, 1, 1, ALL),
    "local_response_norm": (1, 1, 1, slice(0, 5)),
    "filter_response_norm": (1, ALL, ALL, 2),
    "global_response_norm": (1, ALL, ALL, ALL),
    "split_batch_norm": (slice(1, None, 2), ALL, ALL, 2),
    "dynamic_tanh": (1, 1, 1, 2),
    "identity": (1, 1, 1, 2),
    "frozen_batch_norm": (1, 1, 1, 2),
}


@pytest.mark.parametrize("name", AXES)
def test_what_shares_statistics_is_what_the_papers_say(name):
    found, chosen = sharing(described_norm(name, {}))
    assert chosen == (1, 1, 1, 2)
    wanted = np.zeros(found.shape, bool)
    wanted[AXES[name]] = True
    np.testing.assert_array_equal(found, wanted)


def test_groups_of_channels_and_of_examples():
    found, _ = sharing(GroupNorm(groups=4))
    assert found.sum() == 18 and found[1, :, :, 2:4].all()
    found, _ = sharing(described_norm("batch_norm", {"norm_batch": 2}))
    assert found.sum() == 18 and found[:2, :, :, 2].all()


@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted(set(NORMS.entries()) - set(AXES)))
def test_every_entry_is_measured_and_agrees_with_its_facts(name):
    norm = described_norm(name, {})
    found, _ = sharing(norm)
    beyond = found.any(axis=(1, 2, 3)).sum() > 1
    assert not beyond or norm.facts.uses_batch


def test_a_figure_says_it_in_words_and_takes_a_persons_own():
    class Mine:
        def init(self, features):
            return {}, {}

        def apply(self, params, state, x, *, train, mask=None):
            return x - jnp.mean(x, axis=(0, 3), keepdims=True), state

    figure = normlab.show(Mine())
    assert "32 of 288 elements share statistics: all examples, 1 position, all channels" in (
        " ".join(figure.get_suptitle().split())
    )
    assert len(figure.axes) == 32
    alone = np.zeros((2, 1, 1, 2), bool)
    alone[0, 0, 0, 0] = True
    assert in_words(alone, (0, 0, 0, 0)).startswith("no other element shares statistics")
    with pytest.raises(UserError, match="did you mean 'group_norm'"):
        normlab.show("groupnorm")
    with pytest.raises(UserError, match="groops"):
        normlab.show("group_norm", groops=4)
    with pytest.raises(UserError, match="a normaliser, its class or its name is needed"):
        normlab.show(3)  # type: ignore[arg-type]
