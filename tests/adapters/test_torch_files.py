"""Checkpoints as people have them: the state dict, or one sentence; and nothing in them is run."""

import io
import os
import pickle
import subprocess
from argparse import Namespace
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest

from normlab.adapters.torch_files import Inert, careful, state_dict_in, unwrapped
from normlab.adapters.weight_files import load_state_dict
from normlab.errors import UserError

PATH = Path("weights.pth")
STATE = {"fc.weight": np.ones((5, 3)), "fc.bias": np.zeros(5)}


class Runs:
    """Its pickle calls a function with these arguments."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class AttributeDict(dict):
    """A class as Lightning keeps its hyperparameters in."""


class Listed(list):
    pass


def opened(content, protocol):
    return careful(PATH).load(io.BytesIO(pickle.dumps(content, protocol=protocol)))


BESIDE = {
    "args": Namespace(lr=0.1, sizes=[1, 2]),
    "hyper_parameters": AttributeDict(a=Listed([1, 2]), b={1, 2}),
    "history": defaultdict(list, loss=[1.0]),
    "path": Path("runs"),
    "best": np.float64(0.5),
}


@pytest.mark.parametrize("protocol", [2, 4])
def test_objects_beside_the_weights_are_not_made_and_do_not_hinder(protocol):
    found = opened(OrderedDict(epoch=3, **BESIDE, classes=frozenset({1})), protocol)
    assert found["epoch"] == 3 and found["classes"] == {1}
    assert all(isinstance(found[name], Inert) for name in ("args", "hyper_parameters", "best"))
    assert found["args"].held["lr"] == 0.1
    assert found["args"].name == "argparse.Namespace"


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("function", "args"),
    [
        (os.system, ("touch {}",)),
        (subprocess.check_output, (["touch", "{}"],)),
        (eval, ("open('{}', 'w')",)),
        (exec, ("open('{}', 'w')",)),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_what_runs_programs_is_refused_and_not_run(tmp_path, protocol, function, args):
    mark = tmp_path / "run"
    told = [
        [each.format(mark) for each in arg] if isinstance(arg, list) else arg.format(mark)
        for arg in args
    ]
    with pytest.raises(UserError, match=r"weights\.pth: it names \S+, which runs programs"):
        opened({"state_dict": {}, "x": Runs(function, *told)}, protocol)
    assert not mark.exists()


def test_functions_of_other_libraries_are_not_run():
    found = opened({"x": Runs(os.path.join, "a", "b")}, 2)
    assert isinstance(found["x"], Inert) and found["x"].name.endswith("path.join")
    with pytest.raises(pickle.UnpicklingError, match="takes no state"):
        careful(PATH).load(io.BytesIO(b"c__builtin__\nset\n}b."))  # a class that is given a state


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3, "state_dict_ema": {}},
        {"model": {"state_dict": STATE}, "optimizer": {"state": {}}},
        {"net": STATE, "acc": 93.1},
        {"generator": STATE, "epoch": 3},
        {"module": {f"module.{name}": values for name, values in STATE.items()}},
        {f"module._orig_mod.{name}": values for name, values in STATE.items()},
        {"n_averaged": np.array(3)} | {f"module.{n}": values for n, values in STATE.items()},
    ],
    ids=["plain", "timm", "nested", "net", "other", "deepspeed", "compiled", "averaged"],
)
def test_the_state_dict_is_found_wherever_it_lies(content):
    found = unwrapped(state_dict_in(content, PATH, None))
    assert list(found) == list(STATE)
    assert all(found[name] is STATE[name] for name in STATE)


def test_compiled_parts_have_their_plain_names():
    assert list(unwrapped({"a.weight": 0, "b._orig_mod.fc.weight": 1})) == [
        "a.weight",
        "b.fc.weight",
    ]


def test_of_several_state_dicts_one_must_be_chosen():
    several = {"student": STATE, "teacher": STATE, "epoch": 3}
    with pytest.raises(UserError, match="under 'student' and 'teacher'; say which one"):
        state_dict_in(several, PATH, None)
    assert list(state_dict_in(several, PATH, "teacher")) == list(STATE)
    with pytest.raises(UserError, match="no key 'ema'; it has 'student', 'teacher', 'epoch'"):
        state_dict_in(several, PATH, "ema")
    for content, what in (([STATE], "list"), (None, "NoneType"), (3, "int")):
        with pytest.raises(UserError, match=f"and this file a {what}; save the state dict"):
            state_dict_in(content, PATH, None)


def test_torchs_own_files_are_read(tmp_path):
    """Both of torch's formats are read, and another pickle protocol."""
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(
        OrderedDict(conv=torch.nn.Conv2d(2, 3, 1), bn=torch.nn.BatchNorm2d(3))
    )
    network.register_buffer("made_anew", torch.ones(2), persistent=False)
    tensors = network.state_dict()
    for content in (
        tensors,
        {"state_dict": tensors, **BESIDE},
        network,
        {"model": network, "ema": None, "epoch": -1},
    ):
        for zipped, protocol in ((True, 2), (False, 2), (True, 4)):
            for name in ("weights.pth", "last.ckpt", "best.pth.tar"):
                torch.save(
                    content,
                    tmp_path / name,
                    _use_new_zipfile_serialization=zipped,
                    pickle_protocol=protocol,
                )
                found = load_state_dict(tmp_path / name)
                assert list(found) == list(tensors)
                assert all((found[name] == tensors[name]).all() for name in tensors)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_files_of_torch_that_hold_something_else_are_refused_with_the_cure(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {"fc.weight": torch.ones(5, 3)}
    for content, said in (
        ([tensors], "and this file a list"),
        ({"optimizer": {"state": {}}, "epoch": 3}, "'optimizer': dict"),
        ({"state_dict": tensors, "x": Runs(os.system, "false")}, "names posix.system"),
        ({**tensors, "args": Namespace(lr=0.1)}, "'args': Namespace"),
        ({1: torch.ones(2)}, "has 1: Tensor"),
        ({"a": torch.ones(2, device="meta")}, "a is no plain tensor"),
        ({"a": torch.ones(2).to_sparse()}, "a is no plain tensor"),
        ({"a": torch.ones(1).expand(10**12)}, "a claims a shape"),
        ({}, "it has no arrays"),
    ):
        torch.save(content, tmp_path / "weights.pth")
        with pytest.raises(UserError, match=rf"weights\.pth: .*{said}"):
            load_state_dict(tmp_path / "weights.pth")
    torch.jit.script(torch.nn.Linear(2, 3)).save(tmp_path / "weights.pth")
    with pytest.raises(UserError, match="a program of TorchScript"):
        load_state_dict(tmp_path / "weights.pth")
