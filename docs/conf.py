"""How Sphinx builds the site out of the pages that ``docs/site.py`` has copied."""

from typing import Any, NoReturn

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from pygments.lexers.data import JsonLexer
from sphinx.application import Sphinx

import lifealign

project = "lifealign"
author = "The lifealign authors"
copyright = "The lifealign authors; Apache-2.0"
release = lifealign.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4  # links to headings, as they are written where the repository is looked at
highlight_language = "none"
smartquotes = False  # it makes dashes of the two hyphens of an option
pygments_style, pygments_dark_style = "friendly", "github-dark"

autodoc_member_order = "bysource"
napoleon_use_ivar = True
toc_object_entries_show_parents = "hide"
autodoc_typehints_format = "short"

html_theme = "furo"
html_math_renderer = "mathml"
html_title = f"lifealign {release}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options: dict[str, Any] = {"navigation_with_keys": True, "top_of_page_buttons": []}


def write_math(writer: Any, node: nodes.math | nodes.math_block) -> NoReturn:
    """Writes a formula as MathML, which a browser draws by itself; the usual way has it load a program from the net."""
    is_block = isinstance(node, nodes.math_block)
    formula = node.astext().replace(r"\texttt", r"\mathtt")  # the only command of ours that it does not know
    writer.body.append(tex2mathml(formula, as_block=is_block))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Colours lines of JSON as JSON, and draws formulas."""
    app.add_lexer("jsonl", JsonLexer)
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))
