"""Configures Sphinx: `sphinx-build -W docs docs/_build` builds the documentation."""

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
suppress_warnings = ["myst-nb.lexer"]  # raised by notebooks that are shown without execution
html_theme = "furo"
html_title = "normlab"
html_static_path = ["static"]
html_css_files = ["normlab.css"]

# The API reference: a page for every module, from its docstrings.
apidoc_modules = [
    {
        "path": "../normlab",
        "destination": "api",
        "separate_modules": True,
        "module_first": True,
        # Only what people import: the other rooms are used through the command line.
        "exclude_patterns": [
            f"../normlab/{room}" for room in ("configs", "engine", "reports", "interface")
        ]
        + ["../normlab/cli.py"],
    }
]
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "ignore-module-all": True,  # an exported name is described in the module that defines it
}
autodoc_mock_imports = ["llvmlite", "numba"]  # of the extra `native`
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"  # a class lists its fields once
add_module_names = False  # the page says which module it is
default_role = "literal"  # `x` in a docstring is code
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # an attribute is described once, with its class

# Notebooks are text in the percent format, and the build executes them.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "cache"
nb_execution_in_temp = True  # so that files written by a notebook are removed
nb_execution_timeout = 600
nb_execution_raise_on_error = True
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3


def copy_results(app):
    """Copy the committed results into docs/, because pages can only link to files below it."""
    for file in (HERE.parent / "experiments").rglob("*"):
        if file.suffix in (".md", ".svg") and "speed" not in file.parts:
            target = HERE / "experiments" / file.relative_to(HERE.parent / "experiments")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def link_to_copies(app, page, source):
    """Point links out of docs/ to the copies, and links of the copies back to docs/."""
    if page.startswith("experiments/"):
        source[0] = source[0].replace("](../docs/", "](../")
    else:
        source[0] = source[0].replace("](../experiments/", "](experiments/")


def skip_aliases(app, what, name, member, skip, options):
    """Leave out the mark of entries, and the fields of named tuples."""
    marked = name == "catalogue_kind" or type(member).__name__ == "_tuplegetter"
    return True if marked else None


def short_titles(app, page, source):
    """Call a page of the reference `probes.landscape`, not `normlab.probes.landscape module`."""
    if page.startswith("api/"):
        title, _, rest = source[0].partition("\n")
        source[0] = f"{title.rpartition(' ')[0].removeprefix('normlab.')}\n{rest}"


def setup(app):
    """Connect the functions above to Sphinx's events."""
    app.connect("autodoc-skip-member", skip_aliases)
    app.connect("builder-inited", copy_results)
    app.connect("source-read", link_to_copies)
    app.connect("source-read", short_titles)
