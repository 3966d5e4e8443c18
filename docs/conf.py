"""Build the site with Sphinx from the guides and the notebooks with their stored outputs. Nothing is executed.

    python -m sphinx -c docs -W --keep-going . build/site

The source folder is the repository itself, so a link between pages is the same file path here, on GitHub and on disk.
"""

import base64
import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
GITHUB, PUBLISHED = "https://github.com/", "gh-pages"  # the branch that holds the built site


def address() -> str:
    """Return the repository's address from pyproject.toml or, failing that, from the GitHub workflow, or else ""."""
    if named := PROJECT.get("urls", {}).get("Repository"):
        return named.rstrip("/")
    server, repository = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    return f"{server}/{repository}" if server and repository else ""


ADDRESS = address()

project = html_title = "Transfer learning, done properly"
version = release = PROJECT["version"]
language = "en"
extensions = ["myst_nb", "sphinx_design"]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "docs/*.ipynb", "notebooks/*.ipynb", "CONTRIBUTING.md", "CHANGELOG.md"]
exclude_patterns = [".*", "build", "runs", "sweeps", "**/.ipynb_checkpoints"]  # keep Sphinx out of large folders

nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}  # otherwise, it would be loaded from a different host
myst_enable_extensions = ["colon_fence"]  # for the cards; without dollarmath, dollar signs stay as they are
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_static_path = ["static"]
html_extra_path = ["root"]  # has a page that redirects from the site's address to the home page
html_css_files = ["site.css"]
html_use_index = False  # it would be empty
html_theme_options = {"footer_content_items": [], "use_repository_button": bool(ADDRESS), "repository_url": ADDRESS}
if ADDRESS.startswith(GITHUB):
    html_theme_options |= {
        "repository_branch": "HEAD",
        "launch_buttons": {
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
            "notebook_interface": "jupyterlab",
        },
    }


CARDS = ROOT / "build" / "cards"  # index.md refers to the pictures in this folder
PICTURES = {  # the figure on each lesson's card
    "00": "sample_images",
    "01": "class_counts",
    "02": "network",
    "03": "learning_curves",
    "04": "neighbors",
    "05": "errors_by_labels",
    "06": "photos",
    "07": "cheap_and_true",
}


def write_card_pictures(app: Sphinx) -> None:
    """Write the picture for each lesson's card, a figure from the lesson's stored outputs."""
    CARDS.mkdir(parents=True, exist_ok=True)
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        drawn = [cell for cell in cells if f"plots.{PICTURES[path.name[:2]]}(" in "".join(cell["source"])]
        shown = [output["data"] for output in drawn[0]["outputs"] if "image/png" in output.get("data", {})]
        (CARDS / f"{path.name[:2]}.png").write_bytes(base64.b64decode(shown[0]["image/png"]))


def describe_figures(app: Sphinx, page: str, content: list[str]) -> None:
    """Copy each figure's alternative text from the output to the cell, where MyST looks for it."""
    if app.env.doc2path(page).suffix != ".ipynb":
        return
    notebook = json.loads(content[0])
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
                cell["metadata"]["mystnb"] = {"image": {"alt": alt}}
    content[0] = json.dumps(notebook)


def open_the_copies_on_colab(app: Sphinx, page: str, template: str, context: dict[str, Any], *_: object) -> None:
    """Make the Colab button open the copy that installs the course, because Colab opens notebooks only from GitHub.

    Other pages have no such copy, so they get no button.
    """
    for group in context["header_buttons"]:
        buttons = group.get("buttons", [])
        for button in [button for button in buttons if button.get("text") == "Colab"]:
            button["url"] = button["url"].replace("/blob/HEAD/notebooks/", f"/blob/{PUBLISHED}/colab/")
            if not page.startswith("notebooks/"):
                buttons.remove(button)


def write_copies(app: Sphinx, problem: Exception | None) -> None:
    """Write the lessons' copies for Colab next to the pages."""
    if ADDRESS and not problem and app.builder.name == "html":
        sys.path.append(str(ROOT / "tools"))
        import colab

        colab.write_copies(Path(app.outdir) / "colab", ADDRESS)


def setup(app: Sphinx) -> None:
    """Connect the functions above; the theme adds its buttons at priority 501."""
    app.connect("builder-inited", write_card_pictures)
    app.connect("source-read", describe_figures)
    app.connect("html-page-context", open_the_copies_on_colab, priority=900)
    app.connect("build-finished", write_copies)
