"""Networks of other people in a config: found, filled in, swept over normalisers."""

import jax
import jsonschema
import pytest

import normlab
from normlab.configs import build
from normlab.configs.document import ConfigError, parse
from normlab.configs.experiment import load_experiment
from normlab.configs.json_schema import json_schema
from normlab.configs.own_code import loaded_code
from normlab.interface.explain import explain_experiment
from normlab.store.loading import load

CONFIG = """
data: {name: shapes, train_examples: 60, test_examples: 20, size: 8}
model: tests.shared.own_nets:NET
optimizer: {name: sgd, learning_rate: 0.05}
train: {epochs: 1, batch_size: 20}
"""
NETS = ["SmallResNet", "NnxResNet"]


@pytest.fixture
def own(config):
    def write(more="", net="SmallResNet"):
        return config(CONFIG.replace("NET", net) + more)

    return write


def sections(file, *overrides):
    (run,) = load_experiment(file, overrides).runs
    return run.sections


def problems(file, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_experiment(file, overrides)
    return str(caught.value)


def test_what_is_not_given_is_not_in_the_config_and_plain_defaults_are(own):
    found = sections(own())
    assert found["norm"] == {"name": "own"}
    assert found["model"] == {"name": "tests.shared.own_nets:SmallResNet", "num_filters": 4,
                              "stage_sizes": [1, 1]}  # fmt: skip
    given = sections(own(), "model.num_filters=2", "model.stage_sizes=[1]")["model"]
    assert (given["num_filters"], given["stage_sizes"]) == (2, [1])


@pytest.mark.parametrize("net", NETS)
def test_the_network_is_swept_over_normalisers_and_trained(own, make, tmp_path, net):
    file = own(
        "sweep: {norm: [own, {name: group_norm, groups: 2}, "
        "{name: group_norm, groups: 2, where: '*norm*'}]}\n",
        net,
    )
    outcome = make(file)
    assert not outcome.failed
    runs = load(tmp_path / "runs" / "experiment")
    assert [run.arm for run in runs] == [
        "own",
        "group_norm(groups=2)",
        "group_norm(groups=2, where=*norm*)",
    ]
    assert len({tuple(row["test_loss"] for row in run.metrics) for run in runs}) == 3
    for run in normlab.load(outcome.runs.path):
        right = run.outcomes().predicted == run.outcomes().labels
        assert right.mean() == pytest.approx(run.metrics[-1]["test_accuracy"], abs=1e-6)
        again = run.predict(build.dataset(run.config).test.images)
        assert (again.labels == run.outcomes().predicted).mean() > 0.98


@pytest.mark.parametrize("statistics", ["averaged", "recalibrated", "current"])
def test_answers_are_those_of_the_averaged_weights(own, make, statistics):
    outcome = make(own(), "train.ema=0.9", f"train.ema_statistics={statistics}")
    (run,) = normlab.load(outcome.runs.path)
    right = run.outcomes().predicted == run.outcomes().labels
    assert right.mean() == pytest.approx(run.metrics[-1]["test_accuracy"], abs=1e-6)
    again = run.predict(build.dataset(run.config).test.images)
    assert (again.labels == run.outcomes().predicted).mean() > 0.98


def test_weight_decay_leaves_the_normalisers_of_the_network_alone(own):
    found = sections(
        own(), "decay={rate: 0.1, roles: [norm]}", "norm={name: group_norm, groups: 2}"
    )
    optimizer, params = build.optimizer(found), build.parameter_shapes(found)
    params = jax.tree.map(lambda leaf: jax.numpy.ones(leaf.shape), params)
    zero = jax.tree.map(jax.numpy.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    moved = {
        "/".join(key.key for key in path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(updates)
        if (leaf != 0).any()
    }
    blocks = ("0/BatchNorm_0", "0/BatchNorm_1", "1/BatchNorm_0", "1/BatchNorm_1", "1/norm_proj")
    norms = ("bn_init", *(f"ResNetBlock_{block}" for block in blocks))
    assert moved == {f"{norm}/{leaf}" for norm in norms for leaf in ("scale", "bias")}


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model.num_classes=3"], "it returns 3 logits, and the data have 10 classes: leave out"),
        (["model.filters=3"], "has no key 'filters'; did you mean 'num_filters'?"),
        (["model.num_filters=wide"], "'num_filters' must be a whole number, found the text 'wide'"),
        (["norm={name: group_norm, groups: 3}"], "groups=3 does not divide"),
        (["norm={name: group_norm, groups: 2, where: Layer*}"], "where leaves out every layer"),
        (["norm={name: group_norm, groups: 2, where: 3}"], "'where' must be a pattern or a list"),
        (["norm={name: own, where: x}"], "norm 'own' has no key 'where'"),
        (["kernel=weight_norm"], "has no slot for a kernel transform"),
        (["model=mlp"], "an experiment needs the key 'norm'"),
        (["model=mlp", "norm=own"], "norm 'own' is the layers of a model of your own; mlp"),
        (["model=mlp", "norm={name: batch_norm, where: x}"], "leave out where"),
        (["model=tests.shared.own_nets:Any"], "own_nets:Any"),
        (["model=tests.shared.own_nets:NoNet"], "cannot be imported"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_at_its_place(own, overrides, says):
    found = problems(own(), *overrides)
    assert says in found and "Traceback" not in found


SETTINGS = "{block_layers: [1, 2], num_classes: 10"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ([], "needs the key 'cfg': a mapping of block_layers, num_classes, width"),
        (["model.cfg=3"], "'cfg' must be a mapping of block_layers, num_classes, width, found 3"),
        (["model.cfg={block_layers: [1]}"], "needs the key 'cfg.num_classes': a whole number"),
        ([f"model.cfg={SETTINGS}, widht: 2}}"], "cfg has no key 'widht'; did you mean 'width'?"),
        ([f"model.cfg={SETTINGS}, width: a}}"], "'cfg.width' must be a whole number, found the"),
        (["model.cfg={block_layers: [1], num_classes: 3}"],
         "it returns 3 logits, and the data have 10 classes: set cfg.num_classes to 10"),
        (["model=tests.shared.own_nets:ResNet", "model.stage_sizes=[1]"],
         "needs the key 'block_cls': a value; if YAML cannot write it, name a function of the"),
    ],
)  # fmt: skip
def test_mistakes_in_an_object_of_settings_are_told_at_their_place(own, overrides, says):
    assert says in problems(own(net="SettingsResNet"), *overrides)


def test_a_network_made_of_an_object_of_settings_is_swept(own, make):
    net = f"{{name: tests.shared.own_nets:SettingsResNet, cfg: {SETTINGS}}}}}"
    file = own("sweep: {norm: [own, layer_norm], model.cfg.width: [2, 4]}\n", "NET")
    file.write_text(file.read_text().replace("tests.shared.own_nets:NET", net))
    outcome = make(file)
    assert not outcome.failed
    runs = load(outcome.runs.path)
    assert {run.config["model"]["cfg"]["width"] for run in runs} == {2, 4}
    assert len({run.metrics[-1]["test_loss"] for run in runs}) == 4


def test_a_file_beside_the_config_is_found_from_anywhere(tmp_path, monkeypatch, config):
    (tmp_path / "beside_it.py").write_text(
        "import flax.linen as nn\n\n"
        "class Net(nn.Module):\n"
        "    classes: int\n\n"
        "    @nn.compact\n"
        "    def __call__(self, x):\n"
        "        return nn.Dense(self.classes)(x.reshape(len(x), -1))\n"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.syspath_prepend(str(tmp_path / "not_here"))  # what is added is taken out again
    found = sections(config(CONFIG.replace("tests.shared.own_nets:NET", "beside_it:Net")))
    assert list(loaded_code(found)) == ["beside_it"]
    assert build.network(build.by_network(found)).classes == 10


def test_probes_and_microbatches_work_on_them(own, make, tmp_path):
    measure = "measure: [gradients, generalisation, under_corruption]"
    file = own(f"probes: {{at: [end], examples: 20, {measure}}}\n", "NnxResNet")
    file.write_text(file.read_text().replace("batch_size: 20", "batch_size: 20, accumulate: 2"))
    assert not make(file).failed
    (run,) = load(tmp_path / "runs" / "experiment")
    seen = {row["quantity"]: row for row in run.probes}
    assert seen["norm"]["layers"] == ["stem/layers/0", "blocks/0/conv", "blocks/1/conv", "fc"]
    assert {"clean", "test_accuracy"} <= seen.keys()


def test_explain_says_which_layers_stay_and_which_are_replaced(own):
    blocks = explain_experiment(
        load_experiment(own(), ("sweep.norm=[own, {name: batch_norm, where: bn_init}]",))
    )
    titles = [block.title for block in blocks]
    assert titles[0] == "own: the layers of tests.shared.own_nets:SmallResNet as they are"
    assert ["takes the place of", "bn_init"] in blocks[1].rows


def test_a_layer_of_another_library_takes_the_place_of_some_layers(own):
    spoken = own("norm: {name: batch_norm, dialect: torch, where: bn_init}\n")
    plain = "{name: batch_norm, where: bn_init, momentum: 0.9, unbiased_running_variance: true}"
    assert sections(spoken) == sections(own(f"norm: {plain}\n"))
    wrong = problems(own("norm: {name: batch_norm, dialect: torch, where: 3}\n"))
    assert "'where' must be a pattern or a list of patterns" in wrong


def test_the_json_schema_knows_how_layers_are_kept_and_replaced():
    validator = jsonschema.Draft202012Validator(json_schema())
    for good in ("own", "{name: own}", "{name: layer_norm, where: bn_init}",
                 "{name: batch_norm, dialect: torch, where: [bn_init, BatchNorm]}"):  # fmt: skip
        for config in (f"norm: {good}", f"sweep: {{norm: [{good}]}}"):
            validator.validate(parse(config, "text").value)
    for bad in ("{name: own, where: bn_init}", "{name: layer_norm, where: 3}", "{name: onw}"):
        assert not validator.is_valid(parse(f"norm: {bad}", "text").value)
