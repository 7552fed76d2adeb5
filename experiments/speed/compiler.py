"""Which options of XLA's compiler are worth having on this processor and this jaxlib?

    python -m experiments.speed.compiler [--rounds 9] [--nets resnet8,convnet,vit]
    python -m experiments.speed.compiler --nets "" --norms all --save compiler_norms \\
        --candidates "no sums in YNNPACK"

Each candidate compiles the training step and the evaluation of small networks, and some
normalisers, or all of the catalogue, forward and backward. All are timed in turns in one process.
The tables give milliseconds and, per candidate, how many times faster than XLA's defaults it is.
An option that this compiler refuses is listed with its reason. It takes about three minutes.

An option that wins everywhere it matters becomes an entry of `KNOWN` in
`normlab/training/compiler.py`, with the range of versions that it was measured on.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.speed import catalogue, harness
from normlab.catalogue import NORMS
from normlab.data.dataset import Dataset, Split
from normlab.errors import UserError
from normlab.models import MLP, Convnet, Resnet, Vit
from normlab.norms import BatchNorm, LayerNorm
from normlab.training.compiler import YNN_FUSIONS, refusal
from normlab.training.program import Program
from normlab.training.recipe import Recipe
from normlab.training.state import DeviceData

ONEDNN = "xla_cpu_experimental_onednn_custom_call"
DOT, SUM = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT", "LIBRARY_FUSION_TYPE_REDUCE"
CONVOLUTION = "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
Options = Mapping[str, str | bool]

DEFAULT = "defaults"
CANDIDATES: dict[str, Options] = {
    DEFAULT: {},
    "YNNPACK without convolutions": {YNN_FUSIONS: f"{DOT},{SUM}"},
    "YNNPACK's sums alone": {YNN_FUSIONS: SUM},
    "no sums in YNNPACK": {YNN_FUSIONS: f"{DOT},{CONVOLUTION}"},
    "no YNNPACK": {YNN_FUSIONS: ""},
    "oneDNN": {ONEDNN: True, YNN_FUSIONS: ""},
    "oneDNN, YNNPACK's dots and sums": {ONEDNN: True, YNN_FUSIONS: f"{DOT},{SUM}"},
}

BATCH, BATCHES, CLASSES = 128, 4, 10
NETS: dict[str, tuple[int, Callable[[], Any]]] = {
    "resnet8": (16, lambda: Resnet(norm=BatchNorm(), classes=CLASSES, depth=8)),
    "resnet20": (32, lambda: Resnet(norm=BatchNorm(), classes=CLASSES, depth=20)),
    "convnet": (16, lambda: Convnet(norm=BatchNorm(), classes=CLASSES)),
    "mlp": (8, lambda: MLP(norm=BatchNorm(), classes=CLASSES)),
    "vit": (32, lambda: Vit(norm=LayerNorm(), classes=CLASSES)),
}
"""The side of the images, and the network."""
BASIC = ("batch_norm", "layer_norm", "group_norm")
SHAPE = (BATCH, 16, 16, 64)


def compiled(lowered: Any, options: Options) -> Any:
    """Compile a program with some options; none at all stands for XLA's defaults."""
    return lowered.compile(compiler_options=dict(options) or None)


def programs(
    nets: Iterable[str], norms: Iterable[str]
) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Make each program that is timed: its name, lowered, and its arguments."""
    for net in nets:
        side, make = NETS[net]
        draw = np.random.default_rng(0)
        images = draw.integers(0, 256, (BATCH * BATCHES, side, side, 3), dtype=np.uint8)
        split = Split(images, draw.integers(0, CLASSES, len(images), dtype=np.int32))
        data = DeviceData.put(Dataset("noise", split, split, tuple(map(str, range(CLASSES)))))
        program = Program(make(), optax.sgd(0.1, 0.9), Recipe(batch_size=BATCH))
        seed, order = jnp.uint32(0), jnp.arange(len(images), dtype=jnp.int32)
        state = program.init(seed, (side, side, 3))
        arguments = (state, data, order, seed)
        yield f"{net}, training step", jax.jit(program.step).lower(*arguments), arguments
        rows, counts = jnp.arange(BATCH), jnp.ones(BATCH, jnp.int32)
        arguments = (state.params, state.norm_state, data, rows, counts)
        evaluate = jax.jit(partial(program.evaluate_batch, part="test"))
        yield f"{net}, evaluation", evaluate.lower(*arguments), arguments
    for name in norms:
        try:
            call = catalogue.call(name, SHAPE)
        except UserError as error:
            print(f"{name}: {error}")
            continue
        yield f"{name} and gradients", call.func.lower(*call.args), call.args


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and save; returns what is saved."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", default="resnet8,convnet,vit", help="of " + ", ".join(NETS))
    parser.add_argument("--norms", default=",".join(BASIC), help="names of the catalogue, or all")
    parser.add_argument("--candidates", nargs="+", default=[*CANDIDATES], choices=[*CANDIDATES])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--save", default="compiler", help="the results' name; empty: not written")
    given = parser.parse_args(arguments)

    nets = [net for net in given.nets.split(",") if net]
    norms = NORMS.entries() if given.norms == "all" else given.norms.split(",")
    refused = {
        name: [reason for one in options.items() if (reason := refusal(*one))]
        for name, options in CANDIDATES.items()
        if name in (DEFAULT, *given.candidates)
    }
    taken = {name: CANDIDATES[name] for name, reasons in refused.items() if not reasons}
    others = [name for name in taken if name != DEFAULT]
    rows = []
    for program, lowered, inputs in programs(nets, norms):
        ready = {
            name: partial(compiled(lowered, options), *inputs) for name, options in taken.items()
        }
        times = harness.in_turns(ready, rounds=given.rounds)
        rows.append({
            "program": program,
            f"{DEFAULT}, ms": 1e3 * float(np.median(times[DEFAULT])),
            **{other: harness.times_faster(times, other, DEFAULT) for other in others},
        })  # fmt: skip
        print(harness.table(rows[-1:]), flush=True)
    print("\ntimes as fast as the defaults\n" + harness.table(rows))
    reasons = {name: "; ".join(found) for name, found in refused.items() if found}
    for name, reason in reasons.items():
        print(f"refused: {name}: {reason}")
    found = {
        "rows": rows,
        "refused": reasons,
        "candidates": {name: CANDIDATES[name] for name in taken},
    }
    if given.save:
        harness.save(given.save, found)
    return found


if __name__ == "__main__":
    main()
