"""`normlab explain`: what a config's arms do, one normaliser, and how two libraries differ."""

import re
from pathlib import Path

import pytest

from normlab.catalogue import KERNELS, NORMS
from normlab.configs.experiment import load_experiment
from normlab.dialects.library import DIALECTS, dialect
from normlab.errors import UserError
from normlab.interface.differences import DIFFERENCES
from normlab.interface.explain import explain_difference, explain_experiment, explain_norm
from normlab.interface.semantics import NONE, horizon, semantics
from tests.norms.conftest import make
from tests.shared.command_line import TINY, normlab
from tests.shared.my_norm import Tempered

ROOT = Path(__file__).parents[2]


def rows(block):
    return {row[0]: row[1:] for row in block.rows}


REACH = {
    "batch_norm": "each channel by itself, over the examples and positions",
    "population_norm": "each channel by itself, over the examples and positions",
    "layer_norm": "all channels together, at each position by itself",
    "layer_norm_image": "all channels together, over the positions of each example",
    "group_norm": "the channels of each of 8 groups together, over the positions of each example",
    "instance_norm": "each channel by itself, over the positions of each example",
    "local_response_norm": "3 of 16 channels together, at each position by itself",
    "dynamic_tanh": NONE,
}


@pytest.mark.parametrize("name", REACH)
def test_what_an_output_depends_on_is_found_by_running(name):
    assert semantics(make(name))["statistics"] == REACH[name]


@pytest.mark.parametrize("name", ["split_batch_norm", "evo_norm_b0", "identity"])
def test_entries_of_other_kinds_are_explained_too(name):
    found = semantics(make(name))
    assert found["parameters"] and found["statistics"]


def test_eps_is_told_to_be_in_the_root_where_it_is():
    told = "1e-05, inside the root: a deviation of 0.0032 comes out as 0.71"
    for name in ("batch_norm", "layer_norm", "group_norm", "rms_norm"):
        assert semantics(make(name))["eps"] == told
    assert semantics(Tempered(eps=0.0))["eps"].startswith("0: nothing")
    assert "outside any root" in semantics(make("l1_batch_norm"))["eps"]
    gated = semantics(make("evo_norm_s0"))["eps"]  # a half of 0.71, because the gate is half open
    assert gated == "1e-05: values of 0.0032 and -0.0032 in turn come out as 0.35 at most"


def test_a_momentum_is_told_in_steps():
    assert horizon(0.99).endswith("after 100 steps") and horizon(0.1).endswith("after 1 step")
    assert "never moves" in horizon(1) and "alike" in horizon(1, debiased=True)


def test_every_arm_of_a_config_is_explained(tmp_path):
    file = tmp_path / "tiny.yaml"
    sweep = "[{name: batch_norm, dialect: torch}, {name: layer_norm, dialect: keras}, identity]"
    file.write_text(TINY.replace("[identity, batch_norm]", sweep) + "decay: {rate: 5e-4}\n")
    torch, keras, identity = map(rows, explain_experiment(load_experiment(file)))
    assert torch["momentum"][0].endswith("after 10 steps")
    assert torch["running variance"][0].startswith("divided by count - 1")
    assert torch["state at first"] == ["mean 0, variance 1"]
    assert torch["weight decay"][0].startswith("none on the normaliser's own parameters")
    assert "each element" in keras["keras, S5"][0], "what no field holds is not hidden"
    assert identity["statistics"] == [NONE]
    (block,) = explain_experiment(
        load_experiment(file, ("norm=rms_norm", "decay.roles=[weight, norm]"))
    )
    assert "of the normaliser's own parameters too" in rows(block)["weight decay"][0]


def test_a_normaliser_is_explained_by_its_name():
    (block,) = explain_norm("batch_norm", "haiku", ["momentum=0.9"])
    assert "DebiasedBatchNorm" in block.title
    assert rows(block)["state at first"] == ["mean 0, variance 1; the first batch replaces them"]
    for wrong in (("batch_norm", "haiku", []), ("batch_nrom", None, []), ("batch_norm", "tf", []),
                  ("group_norm", None, ["group=3"]), ("rms_norm", None, ["eps"])):  # fmt: skip
        with pytest.raises(UserError):
            explain_norm(*wrong)
    with pytest.raises(UserError) as found:
        explain_norm("group_norm", None, ["group=3", "eps=small"])
    assert str(found.value).splitlines() == [
        "command line 'eps=small': norm group_norm: 'eps' must be a number, found the text 'small'",
        "command line 'group=3': norm group_norm has no key 'group'; did you mean 'groups'?",
    ]


def test_two_libraries_differ_in_what_the_table_says():
    batch, effects = explain_difference("torch", "flax", "batch_norm")
    found = rows(batch)
    assert found["momentum"] == ["0.9 (its 0.1)", "0.99", "S1"]
    assert found["unbiased_running_variance"] == ["true", "false", "S2"]
    assert "eps" not in found, "which is the same"
    assert "S1" in rows(effects)
    batch, _ = explain_difference("haiku", "keras", "batch_norm")
    assert rows(batch)["average"] == ["debiased", "from zero and one", "S1"]
    assert rows(batch)["momentum"][0] == "must be given"
    kernels, _ = explain_difference("torch", "flax", "weight_norm")
    assert rows(kernels)["start"] == ["null", "1", "S16"]
    with pytest.raises(UserError, match="keras has no instance_norm"):
        explain_difference("torch", "keras", "instance_norm")


@pytest.mark.parametrize("one", DIALECTS)
def test_any_two_libraries_can_be_compared(one):
    for other in DIALECTS:
        assert explain_difference(one, other, None)


def test_every_difference_has_its_paragraph():
    text = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    for number in DIFFERENCES:
        assert f'<a id="{number.lower()}"></a>**{number}' in text, number
    assert set(re.findall(r"\*\*(S\d+)\b", text)) == set(DIFFERENCES)
    noted = {n for spoken in DIALECTS.values() for l in spoken.layers.values() for n in l.notes}  # noqa: E741
    assert noted <= set(DIFFERENCES)
    entries = {*NORMS.entries(), *KERNELS.entries()}
    assert {layer for name in DIALECTS for layer in dialect(name).layers} <= entries


def test_the_command_prints_plain_text_where_there_is_no_terminal(tmp_path):
    done = normlab("explain", "--diff", "torch", "keras", "batch_norm", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "0.9 (its 0.1)" in done.stdout and "\x1b" not in done.stdout
    done = normlab("explain", "layer_norm", "--dialect", "troch", cwd=tmp_path)
    assert done.returncode == 2 and "did you mean 'torch'" in done.stderr
