"""Settings that came after others: a config without them is the run that it always was."""

from pathlib import Path

import pytest
import yaml

from normlab.configs.experiment import load_experiment
from normlab.errors import UserError

FIRST = "0033d90ba1"
"""The hash of the tiny config before any of them was there."""


def resolved(file, *overrides):
    return load_experiment(file, overrides).runs[0]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("kernel=null", "train.adaptive_clip=null", "train.scalar_rate=null", "train.metrics=null"),
        ("model.dropout=0", "model.dropout_at=head"),
    ],
)
def test_a_config_that_does_not_use_them_keeps_its_hash(tiny, overrides):
    run = resolved(tiny(), *overrides)
    assert run.hash == FIRST
    assert "kernel" not in run.sections and "adaptive_clip" not in run.sections["train"]
    assert "dropout" not in run.sections["model"]


@pytest.mark.parametrize(
    "override",
    [
        "train.adaptive_clip=0.01",
        "train.scalar_rate=0.1",
        "train.metrics=[auc]",
        "model.dropout=0.1",
    ],
)
def test_a_config_that_uses_one_is_another_run_and_is_read_back_as_it(tiny, make, override):
    assert resolved(tiny(), override).hash != FIRST
    run = make(tiny(), "epochs=1", override).runs.runs[0]
    assert run.path.name.endswith(resolved(run.path / "config.yaml").hash)


def test_of_a_model_of_ones_own_no_setting_is_left_out(tiny, own_files):
    """Its default may be another, so that 0 says something."""
    run = resolved(tiny(), "model={name: 'my_model:Dropping', dropout: 0}")
    assert run.sections["model"]["dropout"] == 0
    assert resolved(tiny(), "model=my_model:Dropping").sections["model"]["dropout"] == 0.5


def test_raw_recordings_are_the_runs_that_were_made_before_they_had_levels(config):
    """Its hash is golden: that of a run from before."""
    file = Path(__file__).parents[2] / "configs" / "speech.yaml"
    settings = ("tune=null", "claims=null", "sweep=null", "norm=instance_norm", "learning_rate=0.3")
    raw = resolved(file, *settings, "data.level=raw")
    assert raw.hash == "d339ae4980"
    assert raw.sections["data"]["level"] == "raw"  # so that it is read back as it
    assert resolved(config(yaml.safe_dump(raw.sections))).hash == raw.hash
    assert resolved(file, *settings).hash != raw.hash
    other = resolved(file, *settings, "data.level=raw", "seed=1")
    assert other.program_hash == raw.program_hash != resolved(file, *settings).program_hash


@pytest.mark.parametrize("model", ["fixup", "normaliser_free"])
def test_a_normaliser_in_a_model_without_its_slot_is_an_error_at_its_place(config, tiny, model):
    text = tiny().read_text().replace("{name: mlp, widths: [8], activation: relu}", model)
    with pytest.raises(UserError) as caught:
        load_experiment(config(text), ())
    assert "experiment.yaml:4:7: norm: " in str(caught.value)
    assert "norm must be identity" in str(caught.value)


def test_a_kernel_transform_in_fixup_is_an_error_at_its_place(config, tiny):
    text = tiny().read_text().replace("{name: mlp, widths: [8], activation: relu}", "fixup")
    text = text.replace("norm: batch_norm", "norm: identity\nkernel: weight_norm")
    with pytest.raises(UserError, match=r"experiment.yaml:5:9: kernel: .* kernel must be null"):
        load_experiment(config(text), ())
