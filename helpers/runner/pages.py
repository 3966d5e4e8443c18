"""Pages: executed notebooks as HTML, and filled-in templates.

The pages load nothing from other hosts, neither scripts nor fonts nor images, and tell the browser to enforce that.
Their HTML and CSS are the files in `templates/`.
"""

import os
import re
import sys
from base64 import b64encode
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbformat import NotebookNode

WIDGET = "application/vnd.jupyter.widget-view+json"
SHOWN = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain")  # no scripts


def render(template: str, **values: Any) -> str:
    """Fill in a template with escaped values."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(autoescape=True, loader=PackageLoader("helpers.runner"), trim_blocks=True)
    return environment.get_template(template).render(code_style=_code_style(), **values)


def body(notebook: "NotebookNode", known: Collection[str] = ()) -> str:
    """Convert a notebook to an HTML fragment, which takes about half a second.

    Links to notebooks in `known` become links to their pages. Other relative links would break, so they become plain
    text.
    """
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    class OwnTemplates(HTMLExporter):
        """Prefers nbconvert's own templates to a user's templates of the same name."""

        def get_prefix_root_dirs(self) -> list[str]:
            users = super().get_prefix_root_dirs()  # type: ignore[no-untyped-call]
            known = [os.path.join(sys.prefix, "share", "jupyter"), *users]
            return [next(root for root in known if Path(root, "nbconvert", "templates", "basic").is_dir())]

    notebook.metadata.pop("widgets", None)  # without a kernel, a progress bar's widget would show 0%
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    config = Config({"NbConvertBase": {"display_data_priority": SHOWN}})
    exporter = OwnTemplates(config=config, template_name="basic")  # type: ignore[no-untyped-call]
    body, _ = exporter.from_notebook_node(notebook)

    def linked(match: re.Match[str]) -> str:
        name, part, text = match.groups()
        return f'<a href="{name}.html{part}">{text}</a>' if name in known else text

    return re.sub(r'<a href="(?![a-z]+:|#)([^"#]*?)(?:\.ipynb)?(|#[^"]*)">(.*?)</a>', linked, body, flags=re.DOTALL)


def figure(path: Path, png: bytes, alt: str) -> dict[str, str]:
    """Write a figure's PNG file next to its page, to be opened at full size; return the values for the template."""
    path.write_bytes(png)
    return {"png": b64encode(png).decode(), "alt": alt, "file": path.name}


def _code_style() -> str:
    """Return the CSS of highlighted code, for light and dark screens."""
    from pygments.formatters import HtmlFormatter

    light, dark = (HtmlFormatter(style=name).get_style_defs("div.highlight") for name in ("xcode", "github-dark"))
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
