"""Explains what a config's arms do, and how two libraries' layers differ."""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from normlab.catalogue import KERNELS, NORMS
from normlab.configs import build
from normlab.configs.dialects import spoken_in
from normlab.configs.document import ConfigError, Mark, Node, flow, parse
from normlab.configs.experiment import Experiment
from normlab.configs.run_config import RunConfig
from normlab.configs.signatures import check_arguments
from normlab.dialects.library import Dialect, Layer, dialect, entry_class
from normlab.errors import UserError
from normlab.interface.differences import DIFFERENCES, DOCS, of_field
from normlab.interface.semantics import FOR_ALL, semantics
from normlab.reports.text_columns import columns

NOTHING_SAID = "-"


class Block(NamedTuple):
    """A title, and rows of cells below it."""

    title: str
    rows: list[list[str]]


def explain_experiment(experiment: Experiment) -> list[Block]:
    """Make a block for each different normaliser of a config, in the order of its arms."""
    blocks: dict[str, Block] = {}
    for run in experiment.runs:
        norm = build.normaliser(run.sections)
        if norm is None:
            title = f"{run.arm}: the layers of {run.sections['model']['name']} as they are"
            blocks.setdefault(title, Block(title, []))
            continue
        rows = semantics(norm)
        where = run.sections["norm"].get("where")
        if where is not None:
            rows["takes the place of"] = flow(where)
        if rows["parameters"] != "none":
            rows["weight decay"] = _decay(run)
        transform = build.kernel_transform(run.sections)
        if transform is not None:
            rows["kernels"] = f"through {transform!r}"
        title = f"{run.arm}: {norm!r}"
        spoken = spoken_in(run.origins)
        name = run.sections["norm"]["name"]
        if spoken is not None:
            rows |= _peculiar(dialect(spoken[0]), spoken[1] or name)
        blocks.setdefault(title, Block(title, [list(row) for row in rows.items()]))
    return list(blocks.values())


def explain_norm(name: str, library: str | None, given: Iterable[str]) -> list[Block]:
    """Explain one normaliser by its name, with `field=value` arguments and perhaps a dialect.

    Raises:
        UserError: there is no such normaliser, dialect or field, or a value does not fit.
    """
    nodes = dict(_argument(text) for text in given)
    arguments = {key: node.value for key, node in nodes.items()}
    called = name
    rows: dict[str, str] = {}
    if library is not None:
        spoken = dialect(library)
        called, arguments = spoken.translate(name, arguments)
        rows = _peculiar(spoken, name)
    here = Mark("command line")
    marks = {key: node.mark for key, node in nodes.items()}
    fields = {key: Node.of(value, marks.get(key, here)) for key, value in arguments.items()}
    cls = NORMS.load(called)
    checked, problems = check_arguments(cls, "norm", Node(fields, here), f"norm {called}")
    if checked is None:
        raise ConfigError(problems)
    norm = cls(**checked)
    title = f"{name} of {library}: {norm!r}" if library else repr(norm)
    return [Block(title, [list(row) for row in {**semantics(norm), **rows}.items()])]


def explain_difference(left: str, right: str, only: str | None) -> list[Block]:
    """Tell how two libraries' layers differ, a block a normaliser, and to what effect.

    Raises:
        UserError: there is no such dialect, or one of them lacks the normaliser asked for.
    """
    first, second = dialect(left), dialect(right)
    if only is not None:
        for spoken in (first, second):
            spoken.layer(only)
    shared = [only] if only else [name for name in first.layers if name in second.layers]
    blocks, met = [], []
    for name in shared:
        rows = _differing(first, second, name)
        met += [row[-1] for row in rows]
        ours = [["", left, right, ""]]
        ours += [["layer", first.layer(name).theirs, second.layer(name).theirs, ""]]
        blocks.append(Block(name, ours + (rows or [["no difference", "", "", ""]])))
    for one, other in ((first, second), (second, first)):
        lacking = [name for name in one.layers if name not in other.layers]
        if lacking and only is None:
            blocks.append(Block(f"only in {one.name}: {', '.join(lacking)}", []))
    numbers = sorted(set(met), key=lambda number: int(number[1:]))
    effects = [[number, ": ".join(DIFFERENCES[number])] for number in numbers]
    if effects:
        blocks.append(Block(f"what that does ({DOCS} has a paragraph on each)", effects))
    return blocks


def show(console: Console, blocks: list[Block], closing: str | None = FOR_ALL) -> None:
    """Print blocks: wrapped to the width of a terminal, plain columns elsewhere."""
    for index, block in enumerate(blocks):
        if index:
            console.print()
        console.print(Text(block.title, style="bold"), soft_wrap=not console.is_terminal)
        if not console.is_terminal:
            for line in columns(block.rows, indent="  ") if block.rows else []:
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        elif block.rows:
            grid = Table.grid(padding=(0, 2, 0, 0))
            grid.add_column(no_wrap=True)
            for _ in block.rows[0][1:]:
                grid.add_column(overflow="fold")
            for head, *rest in block.rows:
                grid.add_row(Text(f"  {head}", style="dim"), *map(Text, rest))
            console.print(grid)
    if closing:
        console.print()
        console.print(closing, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _argument(text: str) -> tuple[str, Node]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"an argument is field=value, as in momentum=0.1, found '{text}'")
    return key, parse(value, f"'{text}'").marked(Mark.of_override(text))


def _peculiar(spoken: Dialect, name: str) -> dict[str, str]:
    """Say what the library does that the description does not hold."""
    layer = spoken.layer(name)
    notes = {f"{spoken.name}, {number}": text for number, text in layer.notes.items()}
    return {f"{spoken.name}'s layer": layer.theirs, **notes}


def _decay(run: RunConfig) -> str:
    """Say whether weight decay touches the normaliser's own parameters."""
    decay, optimizer = run.sections["decay"], run.sections["optimizer"]
    own = optimizer.get("weight_decay")
    rates = [f"{decay['rate']:g} (decay)"] if decay["rate"] else []
    rates += [f"{own:g} ({optimizer['name']})"] if isinstance(own, float) and own else []
    if not rates:
        return "none on anything"
    rate = " and ".join(rates)
    if "norm" in decay["roles"]:
        return f"{rate}, of the normaliser's own parameters too"
    return f"none on the normaliser's own parameters; {rate} on {', '.join(decay['roles'])}"


def _differing(first: Dialect, second: Dialect, name: str) -> list[list[str]]:
    """Make rows of the aspect, both values, and the number of the difference."""
    one, other = (_settled(spoken, name) for spoken in (first, second))
    rows = []
    for field in dict.fromkeys([*one, *other]):
        if one.get(field) != other.get(field):
            left, right = (each.get(field, NOTHING_SAID) for each in (one, other))
            rows.append([field, left, right, of_field(field, name)])
    left_notes, right_notes = first.layer(name).notes, second.layer(name).notes
    for number in DIFFERENCES:
        left, right = (notes.get(number, NOTHING_SAID) for notes in (left_notes, right_notes))
        if left != right:
            rows.append([DIFFERENCES[number][0], left, right, number])
    return rows


def _settled(spoken: Dialect, name: str) -> dict[str, str]:
    """Say a layer's fields in normlab's meaning, with what the library writes for them."""
    layer: Layer = spoken.layer(name)
    stand_ins = {"momentum": 0.5, "groups": 1}
    given = {key: stand_ins[key] for key in layer.required}
    entry, fields = spoken.translate(name, given)
    cls = entry_class(entry)
    defaults = {f.name: f.default for f in dataclasses.fields(cls)}
    wanted = [f for f in (*layer.arguments, *layer.defaults) if f != "axis_name"]
    wanted += ["unbiased_running_variance"] if name == "batch_norm" else []
    wanted += defaults if name in KERNELS.entries() else []
    values = {}
    for key in dict.fromkeys(wanted):
        value = {**defaults, **fields}[key]
        values[key] = f"{value:g}" if isinstance(value, float) else flow(value)
        if key in layer.required:
            values[key] = "must be given"
        elif key == "momentum" and spoken.rate_of_new:
            values[key] = f"{values[key]} (its {layer.defaults[key]})"
    if "momentum" in values:
        kind = "debiased" if entry == "debiased_batch_norm" else "from zero and one"
        values["average"] = kind if name == "batch_norm" else NOTHING_SAID
    return values
