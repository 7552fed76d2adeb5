"""A checkpoint is restored as it was saved, or not at all."""

import dataclasses
import logging
import random
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from normlab.data.shapes import Shapes
from normlab.engine import checkpoint
from normlab.engine.checkpoint import Checkpoints
from normlab.errors import UserError
from normlab.models.plain import MLP
from normlab.norms import BatchNorm
from normlab.store.checkpoint_files import CLOCK, FILES, restore_anything
from normlab.store.files import DamagedError
from normlab.store.loading import load_runs
from normlab.training.compiled import Compiled
from normlab.training.optimizer import with_recipe
from normlab.training.program import Program
from normlab.training.recipe import Recipe
from normlab.training.state import Clock, DeviceData, Meter, TrainState


def state(seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "Dense_0": {"kernel": jax.random.normal(keys[0], (40, 30)), "bias": jnp.zeros(30)},
        "scale": jax.random.normal(keys[1], (5,)).astype(jnp.bfloat16),
    }
    opt_state = ({"trace": jax.random.normal(keys[2], (40, 30))}, ())
    return TrainState(jnp.int32(7), params, {}, opt_state, Meter.empty(), jnp.bool_(False))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "checkpoints"
    checkpoints = Checkpoints(path)
    checkpoints.save(state(), Clock(1.5, 0.25))
    checkpoints.close()
    return path


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def restored(path):
    checkpoints = Checkpoints(path)
    try:
        return checkpoints.restore(state(1))
    finally:
        checkpoints.close()


def assert_as_saved(found):
    jax.tree.map(np.testing.assert_array_equal, found, state()._asdict()["params"])


def largest(path):
    return max(path.glob("7/state/**/d/*"), key=lambda file: file.stat().st_size)


def flip(file, bit):
    content = bytearray(file.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    file.write_bytes(content)


def test_it_is_restored_as_it_was_saved(saved):
    found, clock = restored(saved)
    assert_as_saved(found.params)
    assert_as_saved(restore_anything(saved)["params"])
    assert clock == Clock(1.5, 0.25) and int(found.step) == 7
    assert found.params["scale"].dtype == jnp.bfloat16


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_a_cut_and_a_lost_file_are_told(copy, seed):
    chosen = random.Random(seed)
    files = sorted(file for file in copy.glob("7/**/*") if file.is_file())
    file = largest(copy) if seed % 3 == 0 else chosen.choice(files)
    content = file.read_bytes()
    if seed % 3 < 2:
        flip(file, chosen.randrange(8 * len(content)))
    elif seed % 2:
        file.write_bytes(content[: chosen.randrange(len(content))])
    else:
        file.unlink()
    for restore in (restored, restore_anything):
        with pytest.raises(
            DamagedError, match=rf"{file.name} is damaged: .*; delete .*makes the run"
        ):
            restore(copy)


@pytest.mark.parametrize("bit", range(4000, 34000, 5000))
def test_without_digests_of_files_those_of_the_arrays_tell(copy, bit):
    """The same happens after a crash between the two, and where the disk or the memory errs."""
    (copy / FILES).unlink()
    flip(largest(copy), bit)
    for restore in (restored, restore_anything):
        try:
            found = restore(copy)
        except DamagedError:
            continue
        assert_as_saved(found[0].params if isinstance(found, tuple) else found["params"])


@pytest.mark.parametrize(
    "wrong", [b'{"train": 1.5', b"[]", b'{"train": 2.5, "evaluate": 0.25, "x": 1}', b"\xff"]
)
def test_a_damaged_part_in_json_is_told(copy, wrong):
    (copy / FILES).unlink()
    (copy / "7" / "clock" / "metadata").write_bytes(wrong)
    with pytest.raises(DamagedError, match="delete"):
        restored(copy)


def test_a_changed_number_of_the_part_in_json_is_told(copy):
    (copy / FILES).unlink()
    file = copy / "7" / "clock" / "metadata"
    file.write_text(file.read_text().replace("1.5", "9.5", 1))
    with pytest.raises(DamagedError, match="part in JSON is not what was saved"):
        restored(copy)


def test_one_of_an_earlier_normlab_is_restored_as_it_is(copy):
    (copy / FILES).unlink()
    (copy / "7" / "clock" / "metadata").write_text('{"train": 1.5, "evaluate": 0.25}')
    found, clock = restored(copy)
    assert_as_saved(found.params)
    assert clock == Clock(1.5, 0.25)


def test_where_there_is_none_that_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint in .*nowhere"):
        restore_anything(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_run_with_a_damaged_checkpoint_is_told_and_the_others_go_on(tiny, make):
    file = tiny("sweep: {seed: [0, 1]}\n")
    first, second = make(file).runs.runs
    before = second.params()
    flip(largest_of(first.path / "checkpoints"), 4001)
    for run in (first, second):
        run.write_status("interrupted", arm="batch_norm", seed=0)
    outcome = make(file)
    assert outcome.states == ["failed", "done"]
    assert "is damaged" in first.status["error"] and "delete" in first.status["error"]
    jax.tree.map(np.testing.assert_array_equal, second.params(), before)
    with pytest.raises(UserError, match="is damaged"):
        first.params()
    shutil.rmtree(first.path / "checkpoints")
    assert make(file).states == ["done", "skipped"]


def test_given_again_the_command_makes_a_run_with_a_damaged_checkpoint_anew(tiny, make):
    file = tiny()
    (run,) = make(file).runs.runs
    before = run.params()
    flip(largest_of(run.path / "checkpoints"), 4001)
    run.write_status("interrupted", arm="batch_norm", seed=0)
    assert make(file).states == ["failed"]
    assert "when it is given once more" in run.status["error"]
    assert make(file).states == ["done"]
    jax.tree.map(np.testing.assert_array_equal, run.params(), before)


def test_what_a_killed_process_left_is_removed(tiny, make):
    file = tiny()
    (run,) = make(file).runs.runs
    (run.path / ".status.json.123.456").write_text("{")
    (newest,) = (f for f in (run.path / "checkpoints").iterdir() if f.is_dir())
    shutil.copytree(newest, newest.with_name("1"))
    run.write_status("interrupted", arm="batch_norm", seed=0)
    assert make(file).states == ["done"]
    assert not list(run.path.glob(".*"))
    assert [f.name for f in (run.path / "checkpoints").iterdir() if f.is_dir()] == [newest.name]


def largest_of(path):
    return max(path.glob("*/state/**/d/*"), key=lambda file: file.stat().st_size)


def test_the_seconds_in_a_checkpoint_are_those_of_a_clock():
    assert {field.name for field in dataclasses.fields(Clock)} == CLOCK


def test_a_full_disk_ends_the_command_in_a_sentence_and_loses_nothing(
    tiny, make, monkeypatch, caplog
):
    def save(*arguments, **more):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing in OCDBT database")

    file = tiny("sweep: {seed: 0..1}\n")
    with monkeypatch.context() as full:
        full.setattr(checkpoint.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(UserError, match=r"No space left.*make room and give the same command"):
            make(file, out=(out := file.parent / "out"))
    assert [run.state for run in load_runs(out / "tiny")] == ["interrupted", "new"]
    with monkeypatch.context() as full:
        full.setattr(ocp.CheckpointManager, "save", save)
        with pytest.raises(UserError, match="No space left"):
            make(file, out=out)
    logging.getLogger("absl").error("[thread=x] _SignalingThread.run() raised an exception")
    logging.getLogger("absl").error("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]
    assert make(file, out=out).states == ["done", "done"]


@pytest.mark.parametrize("statistics", ["averaged", "current"])
def test_averaged_weights_come_back_as_they_were_saved(tmp_path, statistics):
    recipe = Recipe(epochs=1, batch_size=16, ema=0.9, ema_statistics=statistics)
    model = MLP(norm=BatchNorm(), classes=10, widths=(4,))
    program = Program(model, with_recipe(optax.sgd(0.1), recipe), recipe)
    compiled = Compiled(program, DeviceData.put(Shapes(train_examples=32, size=8).load()))
    state, _ = compiled.step(compiled.init(0), compiled.order(0, 0), 0)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(state, Clock())
    restored = checkpoints.restore(compiled.init(1))
    checkpoints.close()
    assert restored is not None
    assert jax.tree.structure(restored[0]) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored[0], state)
