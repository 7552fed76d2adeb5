"""`model: ngpt` needs `train.project: sphere`, and what pulls weights off the sphere is refused."""

# ruff: noqa: E501 (a golden text is easier to read whole)

import pytest

from normlab.configs.experiment import load_experiment

from .mistakes import assert_told, text

NGPT = {
    "model": "{name: ngpt, depth: 1, width: 8, heads: 2, patch: 8}",
    "norm": "identity",
    "optimizer": "{name: adam, learning_rate: 0.1}",
    "train": "{epochs: 1, batch_size: 20, project: sphere}",
}
BARE = "{epochs: 1, batch_size: 20}"
SHORTENS = "shortens unit vectors, which train.project brings back"


def test_the_recipe_is_whole(config):
    (run,) = load_experiment(config(text(**NGPT)), ()).runs
    assert run.sections["train"]["project"] == "sphere"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": BARE}, "{file}:5:8: train: the weights of this network are unit vectors, which training must keep so: write train: {project: sphere}"),
        ({"model": "{name: mlp}"}, "{file}:5:45: train: project: sphere is for a network whose weights are unit vectors, such as model ngpt, and this one has none; project: weights keeps the norm of any network's kernels"),
        ({"norm": "layer_norm"}, "{file}:3:7: norm: model ngpt stands in place of a normaliser: norm must be identity, found LayerNorm(..."),
        ({"decay": "{rate: 0.1}"}, f"{{file}}:6:15: decay: weight decay {SHORTENS}: leave it out"),
        ({"optimizer": "{name: adamw, learning_rate: 0.1}"}, f"{{file}}:4:12: optimizer: the weight decay of adamw {SHORTENS}: write weight_decay: 0"),
        ({"placement": "pre"}, "{file}:6:12: placement: model ngpt has no slot for a placement; use null"),
        ({"kernel": "weight_norm"}, "{file}:6:9: kernel: model ngpt has no slot for a kernel transform; use null"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_a_sphere_is_told_with_its_place(config, changes, told):
    assert_told(config(text(**{**NGPT, **changes})), told)
