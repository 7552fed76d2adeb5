"""A file imports only from floors below its own, or from its own folder."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"errors", "catalogue", "core", "places", "sharding", "spellings"},
    {"ops", "store"},
    {"norms", "weights", "placements", "data"},
    {"models", "dialects"},
    {"adapters"},
    {"training", "probes", "policies"},
    {"measures"},
    {"configs", "evidence"},
    {"engine", "reports"},
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
    assert breaches("engine", "import experiments.exactness") == ["experiments.exactness"]
    types_only = "if TYPE_CHECKING:\n    from normlab.configs import build"
    for source in (types_only, "import normlab"):
        assert breaches("models", source)
    assert breaches("training", "from normlab import run") == ["normlab.run"]
    assert breaches("norms", "import normlab.ops.moments, normlab.core, jax") == []
    assert breaches("engine", "from normlab.training.fit import fit") == []
    assert breaches("evidence", "from normlab.reports import html") == ["normlab.reports"]
    assert breaches("cli", "from normlab import catalogue, interface") == []


def circle(sources: dict[str, str]) -> list[str]:
    """The modules of one circle of imports, or none; modules are given by name, with their text."""
    named = {
        name: {
            f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in sources
            else node.module
            for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)
            for alias in node.names
        } | imports(text)
        for name, text in sources.items()
    }  # fmt: skip
    left = {name: {other for other in found if other in sources} for name, found in named.items()}
    while True:
        free = [name for name, found in left.items() if not found]
        if not free:
            return sorted(left)
        for name in free:
            del left[name]
        for found in left.values():
            found.difference_update(free)


def test_no_files_import_each_other_in_a_circle():
    found = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts): file.read_text("utf-8")
        for file, _ in files()
        if file.name != "__init__.py"
    }
    assert not circle(found)


def test_a_circle_would_be_caught():
    lazy = "def f():\n    from normlab.norms import batch"
    one = {"normlab.norms.batch": "import normlab.norms.layer", "normlab.norms.layer": lazy}
    assert circle({**one, "normlab.norms.rms": ""}) == sorted(one)
    assert circle({"normlab.norms.batch": "", "normlab.norms.layer": lazy}) == []


JAX_FREE = ("store", "measures", "evidence")


def test_what_lies_on_disk_is_read_without_jax():
    """`report` and `verdict` answer without the second that importing jax takes."""
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file, place in files()
        if place in JAX_FREE and file.name not in ("__init__.py", "checkpoint_files.py")
    ]
    code = f"import sys\nfor name in {modules}: __import__(name)\nprint('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr


def lines_of_code(text):
    """The number of lines outside docstrings, so that nobody splits a file to explain it."""
    tree = ast.parse(text)
    described = sum(
        node.end_lineno - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
    return len(text.splitlines()) - described


def test_docstrings_do_not_count_as_code():
    assert lines_of_code('"""One\nTwo."""\nX = 1\n"""Three."""\n') == 1


def test_files_stay_short():
    long = {str(f): n for f, _ in files() if (n := lines_of_code(f.read_text())) > 300}
    assert not long, "a file has one reason to exist"
