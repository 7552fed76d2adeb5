"""Names as people type them lead to normlab's."""

import pytest

from normlab.catalogue import DATA, KERNELS, NORMS
from normlab.errors import UserError
from normlab.spellings import MEANT, meant

MEANINGS = {
    "none": "identity", "bn": "batch_norm", "BN": "batch_norm", "ln": "layer_norm",
    "BatchNorm2d": "batch_norm", "nn.BatchNorm1d": "batch_norm", "LayerNorm": "layer_norm",
    "batchnorm": "batch_norm", "Group-Norm": "group_norm", "InstanceNorm2d": "instance_norm",
    "gn8": "{name: group_norm, groups: 8}", "GroupNorm(32)": "{name: group_norm, groups: 32}",
    "group_norm_4": "{name: group_norm, groups: 4}", "RMSNorm": "rms_norm", "gn": "group_norm",
    "SyncBatchNorm": "batch_norm",
}  # fmt: skip


@pytest.mark.parametrize("word", MEANINGS)
def test_a_usual_name_of_a_normaliser_is_known_in_the_error(word):
    with pytest.raises(UserError) as error:
        NORMS.find(word)
    wanted = MEANINGS[word]
    shown = wanted if wanted.startswith("{") else f"'{wanted}'"
    assert str(error.value) == f"no normaliser is called '{word}'; did you mean {shown}?"


def test_what_is_not_there_is_not_offered():
    assert meant("lr", ["momentum"]) is None and meant("gn8", ["batch_norm"]) is None
    assert meant("CIFAR-10", DATA.entries()) == "cifar10"


def test_each_meaning_is_a_name_that_configs_have():
    from normlab.catalogue import AUGMENTATIONS
    from normlab.configs.optax_names import OPTIMIZERS
    from normlab.configs.sections import TOP_LEVEL
    from normlab.measures.measures import METRICS
    from normlab.training.recipe import Recipe

    shelves = (NORMS, KERNELS, AUGMENTATIONS, OPTIMIZERS)
    known = {*TOP_LEVEL, *METRICS, *Recipe.__dataclass_fields__}
    known |= {name for shelf in shelves for name in shelf.entries()}
    arguments = {"learning_rate", "weight_decay", "eps", "groups", "use_scale", "depth"}
    assert set(MEANT.values()) <= known | arguments
