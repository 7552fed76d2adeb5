"""The `normlab` command: puts together what `normlab/interface/commands/` holds."""

import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

import typer

from normlab.errors import UserError
from normlab.interface import commands
from normlab.interface.commands import BAD_INPUT, INTERRUPTED, Panel


def assemble(app: typer.Typer, package: ModuleType) -> typer.Typer:
    """Add the commands in a folder to `app`, and its folders as groups, in the order of panels."""
    names = [found.name for found in pkgutil.iter_modules(package.__path__)]
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    panels = list(Panel)
    for module in sorted(modules, key=lambda m: panels.index(getattr(m, "PANEL", panels[0]))):
        name, panel = module.__name__.rpartition(".")[2], getattr(module, "PANEL", None)
        if hasattr(module, "command"):
            app.command(name, rich_help_panel=panel)(module.command)
        else:
            group = typer.Typer(help=module.__doc__, no_args_is_help=True)
            app.add_typer(assemble(group, module), name=name, rich_help_panel=panel)
    return app


app = assemble(
    typer.Typer(
        name="normlab",
        help="Run experiments on normalisation from YAML, and compare normalisers.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    ),
    commands,
)


def main() -> None:
    """Run the command line: a person's mistake has no traceback, a defect of normlab's has one."""
    # A config may name `my_package.my_file:MyNorm` in the folder where normlab is run.
    sys.path.append(str(Path.cwd()))
    try:
        app()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
