"""How Sphinx builds the documentation: `sphinx-build -W docs docs/_build`."""

import importlib.metadata
import shutil
from pathlib import Path

HERE = Path(__file__).parent

project = "normlab"
author = "the normlab authors"
copyright = "the normlab authors, Apache 2.0"
release = importlib.metadata.version("normlab")

extensions = [
    "myst_nb",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "conf.py", "api/modules.rst"]
suppress_warnings = ["myst-nb.lexer"]  # of notebooks that are shown without being executed
html_theme = "furo"
html_title = "normlab"

# The API reference: a page for every module, from its docstrings.
apidoc_modules = [
    {
        "path": "../normlab",
        "destination": "api",
        "separate_modules": True,
        "module_first": True,
        # What people import. How runs are made and shown is behind the command line.
        "exclude_patterns": [
            f"../normlab/{room}" for room in ("configs", "engine", "reports", "interface")
        ]
        + ["../normlab/cli.py"],
    }
]
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "ignore-module-all": True,  # what a package offers is described in the file that it comes from
}
autodoc_typehints = "description"
default_role = "literal"  # `x` in a docstring is code
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # an attribute is described once, with its class

# Notebooks are text, in the percent format; they are executed as the pages are built.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "cache"
nb_execution_in_temp = True  # what a notebook writes is not left here
nb_execution_timeout = 600
nb_execution_raise_on_error = True
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3


def copy_results(app):
    """The committed results lie beside docs/, and pages may only link to what is below it."""
    for file in (HERE.parent / "experiments").rglob("*"):
        if file.suffix in (".md", ".svg") and "speed" not in file.parts:
            target = HERE / "experiments" / file.relative_to(HERE.parent / "experiments")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def link_to_copies(app, page, source):
    """Links out of docs/ lead to the copies, and links of the copies back into it."""
    if page.startswith("experiments/"):
        source[0] = source[0].replace("](../docs/", "](../")
    else:
        source[0] = source[0].replace("](../experiments/", "](experiments/")


def setup(app):
    """What Sphinx calls as it starts."""
    app.connect("builder-inited", copy_results)
    app.connect("source-read", link_to_copies)
