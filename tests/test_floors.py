"""A file imports only from floors below its own, or from its own folder."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"errors", "catalogue", "sharding", "core"},
    {"norms", "weights", "data"},
    {"models"},
    {"adapters"},
    {"training", "probes"},
    {"runs"},
    {"evidence"},
    {"interface", "cli", "__init__"},
]
"""`interface` holds what the two faces show; the names that `normlab` itself offers are its own,
`__init__`'s, wherever they come from."""
FLOOR = {place: number for number, places in enumerate(FLOORS) for place in places}


def imports(source: str) -> set[str]:
    """Every module that a source names, wherever in it: at the top, in a function, for types."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "normlab":
                found.update(f"normlab.{alias.name}" for alias in node.names)
            else:
                found.add(node.module or "")
    return found


def breaches(place: str, source: str) -> list[str]:
    wrong = []
    for module in imports(source):
        package, _, rest = module.partition(".")
        if package == "experiments":
            wrong.append(module)
        if package != "normlab":
            continue
        target = rest.split(".")[0]
        if target not in FLOOR:  # `import normlab`, or a name that its lazy table offers
            target = "__init__"
        if target != place and FLOOR[target] >= FLOOR[place]:
            both_at_the_bottom = FLOOR[target] == FLOOR[place] == 0
            both_at_the_top = FLOOR[target] == FLOOR[place] == len(FLOORS) - 1
            if not (both_at_the_bottom or both_at_the_top):
                wrong.append(module)
    return wrong


def files():
    for file in sorted((ROOT / "normlab").rglob("*.py")):
        yield file, file.relative_to(ROOT / "normlab").parts[0].removesuffix(".py")


def test_every_file_has_a_floor():
    assert {place for _, place in files()} <= set(FLOOR)


def test_no_file_imports_from_its_own_floor_or_above():
    found = {str(f): wrong for f, place in files() if (wrong := breaches(place, f.read_text()))}
    assert not found


def test_an_upward_import_would_be_caught():
    planted = "def f():\n    from normlab.configs.build import program\n"
    assert breaches("norms", planted) == ["normlab.configs.build"]
    assert breaches("norms", "import normlab.data.cifar") == ["normlab.data.cifar"]
    assert breaches("runs", "import experiments.exactness") == ["experiments.exactness"]
    for types_only in ("if TYPE_CHECKING:\n    from normlab.runs import build", "import normlab"):
        assert breaches("models", types_only)
    assert breaches("training", "from normlab import run") == ["normlab.run"]
    assert breaches("norms", "import normlab.ops.moments, normlab.core, jax") == []
    assert breaches("runs", "from normlab.training.fit import fit") == []
    assert breaches("cli", "from normlab import catalogue, interface") == []


def test_files_stay_short():
    long = {str(f): n for f, _ in files() if (n := len(f.read_text().splitlines())) > 300}
    assert not long, "a file has one reason to exist"
