"""The `normlab` command: puts together what `normlab/interface/commands/` holds."""

import importlib
import io
import os
import pkgutil
import sys
from importlib.metadata import version
from types import ModuleType
from typing import Annotated

import typer

from normlab.errors import UserError, visible
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
            context = getattr(module, "CONTEXT", None)
            app.command(name, rich_help_panel=panel, context_settings=context)(module.command)
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


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"normlab {version('normlab')}")
        raise typer.Exit


@app.callback()
def _normlab(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line: a person's mistake has no traceback, a defect of normlab's has one."""
    _take_any_name()
    try:
        app()
    except UserError as error:
        print(visible(str(error)), file=sys.stderr)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _take_any_name() -> None:
    """See to it that any name can be read and shown, whatever the locale and the terminal.

    Under `LC_ALL=C` with `PYTHONUTF8=0` Python takes names of files for ASCII, so it is begun
    again with UTF-8. What a terminal cannot show is written as `\\u4e2d`.
    """
    if sys.getfilesystemencoding() == "ascii" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
