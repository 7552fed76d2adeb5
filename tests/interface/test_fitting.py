"""`normlab.fit` in a notebook: a bar that moves, a short text of the result, and its picture."""

import io
import sys
import types
from functools import partial

import jax
import numpy as np
import optax
import pytest
from flax import nnx

import normlab
from normlab.data.dataset import Dataset, Split
from normlab.errors import UserError
from normlab.interface import bars, fitting
from normlab.models import MLP
from normlab.norms import BatchNorm
from normlab.training.events import Row
from tests.shared.own_nets import NnxResNet, SmallResNet

LABELS = np.arange(64, dtype=np.int32) % 2
SPLIT = Split(np.repeat(LABELS * 50 + 100, 4).astype(np.uint8).reshape(64, 2, 2, 1), LABELS)
DATA = Dataset("dark or light", SPLIT, SPLIT, ("dark", "light"))
MODEL = MLP(norm=BatchNorm(), classes=2, widths=(8,))


def fit(**options):
    recipe = normlab.Recipe(epochs=8, batch_size=32)
    return normlab.fit(MODEL, DATA, optax.sgd(0.5), recipe, **options)


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would show: every output and every update of it, in turn."""
    outputs = []

    class Handle:
        def update(self, html):
            outputs.append(("update", html.data))

    def display(html, display_id=False):
        if hasattr(html, "data"):  # rich shows its lines otherwise
            outputs.append(("new", html.data))
        return Handle()

    module = types.ModuleType("IPython.display")
    module.HTML = lambda data: types.SimpleNamespace(data=data)
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(bars, "in_notebook", lambda: True)
    monkeypatch.setattr(fitting, "in_notebook", lambda: True)
    return outputs


def values(model):
    return jax.device_get(nnx.to_pure_dict(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))))


def at_the_end(fitted):
    return {name: fitted.history[-1][f"test_{name}"] for name in ("loss", "accuracy")}


@pytest.mark.parametrize("ema", [None, 0.5])
@pytest.mark.parametrize(
    "named",
    [MODEL, SmallResNet, partial(NnxResNet, width=4), NnxResNet(3, 4, 2, rngs=nnx.Rngs(0))],
    ids=["ours", "linen class", "nnx class", "nnx module"],
)
def test_the_trained_model_comes_back_as_evaluation_takes_it(named, ema):
    images = np.tile(DATA.train.images, (1, 2, 2, 3))
    split = Split(images, LABELS)
    data = Dataset("dark or light", split, split, ("dark", "light"))
    before = values(named) if isinstance(named, nnx.Module) else None
    fitted = normlab.fit(named, data, optax.sgd(0.1), normlab.Recipe(2, 16, ema=ema))
    mean, std = data.channel_statistics()
    standardised = (images - mean) / std
    if isinstance(fitted.model, nnx.Module):
        assert isinstance(fitted.model, NnxResNet) and fitted.model is not named
        logits = fitted.model(standardised)
    else:
        logits = fitted.model.apply(fitted.variables, standardised, train=False)
    logits = np.asarray(logits, np.float64)
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(64), LABELS]
    assert losses.mean() == pytest.approx(at_the_end(fitted)["loss"], rel=1e-4)
    assert (logits.argmax(-1) == LABELS).mean() == at_the_end(fitted)["accuracy"]
    if before is not None:
        jax.tree.map(np.testing.assert_array_equal, before, values(named))


def test_a_notebook_has_one_bar_that_moves_and_events_still_come(shown):
    events = []
    fit(emit=events.append)
    assert [kind for kind, _ in shown].count("new") == 1 and "compiling" in shown[0][1]
    shares = [float(html.partition("value='")[2].partition("'")[0]) for _, html in shown]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1 and len(shown) > 5
    assert "step 16 of 16, loss " in shown[-1][1] and "test accuracy" in shown[-1][1]
    assert sum(isinstance(event, Row) for event in events) == 8


def test_elsewhere_it_prints_nothing_unless_asked(capsys):
    fitted = fit()
    assert capsys.readouterr() == ("", "")
    assert repr(fitted) == f"<Fitted: done at step 16, test accuracy {_last(fitted):.3f}>"
    fit(progress=True)
    assert "step 16 of 16" in capsys.readouterr().out


def _last(fitted):
    return fitted.history[-1]["test_accuracy"]


def test_a_result_draws_its_curves():
    fitted = fit()
    axes = fitted.plot().axes[0]
    assert [line.get_label() for line in axes.lines] == ["training accuracy", "test accuracy"]
    assert list(axes.lines[1].get_ydata()) == [row["test_accuracy"] for row in fitted.history]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epochs", "share of examples")
    fitted.plot("test_loss").savefig(io.BytesIO(), format="png")
    with pytest.raises(UserError, match="the history has no 'acuracy'"):
        fitted.plot("acuracy")


def test_a_sweep_in_a_notebook_has_a_bar_that_reads_its_folders(shown, tmp_path):
    from rich.console import Console

    from normlab.interface.console import Display

    (tmp_path / "e.yaml").write_text(
        "data: {name: shapes, train_examples: 60, test_examples: 20, size: 8}\n"
        "model: {name: mlp, widths: [8]}\noptimizer: {name: sgd, learning_rate: 0.1}\n"
        "train: {epochs: 1, batch_size: 20}\nsweep: {norm: [batch_norm, layer_norm]}\n"
    )
    from normlab.configs.experiment import load_experiment
    from normlab.engine.engine import Engine

    console = Console(file=io.StringIO(), force_jupyter=False)
    console.is_jupyter = True  # type: ignore[assignment]
    with Display(console) as display:
        Engine(load_experiment(tmp_path / "e.yaml", ()), tmp_path / "runs", display).run_all()
    assert [kind for kind, _ in shown].count("new") == 1
    assert "2 runs: 2 waiting" in shown[0][1] and "2 runs: 2 done" in shown[-1][1]
    assert "value='1.0000'" in shown[-1][1]
