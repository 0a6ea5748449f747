"""Sphinx settings: MyST pages, Furo, and docstrings as they are written."""

from sphinx.application import Sphinx

from swiommu import __version__

project = "swiommu"
author = "The swiommu authors"
project_copyright = "The swiommu authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "changelog.d", "decisions/0000-template.md"]
html_theme = "furo"
html_title = f"swiommu {release}"

default_role = "py:obj"  # `Region` in a docstring links to Region where that exists
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}

# After these an indented block belongs to the line itself: lists, fields, directives, examples.
OWNERS = ("- ", "* ", ":", "..", ">>>", *(f"{n}." for n in range(10)))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def keep_drawings(_app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Show indented blocks as they stand: docstrings draw trees and tables in plain text.

    reStructuredText would take such a block for a quotation and join its lines, or refuse it.
    """
    result: list[str] = []
    text = ""  # the last line at the level of the running text
    drawing = False
    for line in lines:
        if line.strip() and _indent(line) <= _indent(text):
            if drawing and result[-1].strip():
                result.append("")
            text, drawing = line, False
        elif line.strip() and not drawing and not text.lstrip().startswith(OWNERS) and not text.endswith("::"):
            result += ["", " " * _indent(text) + "::", ""]
            drawing = True
        result.append(line)
    lines[:] = result


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", keep_drawings)
