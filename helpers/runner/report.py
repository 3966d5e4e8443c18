"""The report of a run: one HTML page per executed lesson, and an index with the results first; and that of a sweep.

The pages load nothing from anywhere, neither script nor font nor image, and tell the browser to enforce that. Their
HTML and CSS are the files in `templates/`.
"""

import os
import sys
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.artefacts import write_text
from helpers.runner.parameters import as_text

if TYPE_CHECKING:
    import pandas as pd
    from nbformat import NotebookNode

    from helpers.runner.sweep import Sweep

WIDGET = "application/vnd.jupyter.widget-view+json"
SHOWN = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain")  # what needs no script
SETTINGS = ("optimizer", "learning_rate", "frozen_convs")  # columns in which trainings of one lesson may differ


def result_table(results: "pd.DataFrame") -> "pd.DataFrame":
    """Return mean test accuracies in percent, as text: a row per lesson, task and strategy, a column per label budget.

    `results` are the rows of `results.csv`, one per training, as text; the column `seeds` counts those behind a mean.
    """
    import pandas as pd

    by = ["lesson", "task", "strategy"]
    rows = results.assign(
        task=results["task"] + " " + results["classes"],
        strategy=strategies(results),
        accuracy=100 * results["test_accuracy"].astype(float),
    )
    table = rows.groupby([*by, "labels_per_class"])["accuracy"].mean().unstack()
    budgets = sorted(table.columns, key=lambda budget: (budget == "all", 0 if budget == "all" else int(budget)))
    table = table[budgets].map("{:.2f}".format).replace("nan", "").assign(seeds=rows.groupby(by)["seed"].nunique())
    return table.reindex(pd.MultiIndex.from_frame(rows[by].drop_duplicates())).rename_axis(columns=None).reset_index()


def strategies(results: "pd.DataFrame") -> "pd.Series":
    """Return the strategy of each row, with the settings in which otherwise equal trainings of a run differ, so that
    these are not averaged.

    In a sweep over such a setting, a training with the value that its run was given is known by its strategy alone.
    """
    alike = [name for name in ("run", "lesson", "task", "strategy", "labels_per_class", "seed") if name in results]
    named = results["strategy"]
    for setting in [column for column in SETTINGS if column in results]:
        values = results[setting].str.removesuffix(".0")
        differing = results.groupby(alike)[setting].transform("nunique") > 1
        if f"parameter_{setting}" in results:
            differing &= values != results[f"parameter_{setting}"].str.removesuffix(".0")
        named = named.where(~differing, named + f", {setting} " + values)
    return named


def write_run(folder: Path, run: dict[str, Any], results: "pd.DataFrame") -> Path:
    """Write `html/<lesson>.html` for each lesson executed and `index.html`; return the path of the latter.

    `folder` is that of the run, `run` what its `run.json` says, `results` the rows of its `results.csv`.
    """
    import nbformat

    paths = {lesson["name"]: folder / "lessons" / f"{lesson['name']}.ipynb" for lesson in run["lessons"]}
    pages = {name: nbformat.read(path, as_version=4) for name, path in paths.items() if path.is_file()}
    shared = {"run": run, "pages": pages, "code_style": _code_style()}
    figure = None
    for lesson in run["lessons"]:
        if notebook := pages.get(lesson["name"]):
            page = _render("page.html", title=lesson["title"], body=_body(notebook, pages), **shared)
            write_text(folder / "html" / f"{lesson['name']}.html", page)
            figure = _key_figure(notebook) or figure
    index = _render(
        "index.html",
        title="Transfer learning, lesson by lesson",
        table=result_table(results).to_html(index=False, border=0) if len(results) else "",
        figure=figure,
        facts={
            "Parameters": {name: value for lesson in run["lessons"] for name, value in lesson["parameters"].items()},
            "Versions": run["made_with"]["versions"],
            "Data and machine": {**(run["dataset"] or {}), **run["made_with"]["machine"]},
        },
        **shared,
    )
    write_text(folder / "index.html", index)
    return folder / "index.html"


def write_sweep(sweep: "Sweep", records: list[dict[str, Any]], results: "pd.DataFrame") -> Path:
    """Write a sweep's `sweep.html`, with accuracy over the swept parameters and a link to each executed notebook;
    return its path.

    `records` are those of the runs that finished or failed, `results` the rows of `results.csv`, as text.
    """
    import pandas as pd

    from helpers import plots

    figure = None
    accuracy: dict[str, list[str]] = {}  # of each strategy, by run
    numbers = pd.to_numeric(results.get("test_accuracy", pd.Series(dtype=float)), errors="coerce").dropna()
    if len(numbers):
        rows = results.loc[numbers.index].assign(test_accuracy=numbers)
        if "task" in rows and (rows["task"] == "target").any():
            rows = rows[rows["task"] == "target"]
        rows = rows.assign(strategy=strategies(rows) if "strategy" in rows else "mean")
        means = rows.groupby(["run", "strategy"], sort=False)["test_accuracy"].mean()
        for (run, strategy), mean in means.items():
            accuracy.setdefault(run, []).append(f"{strategy} {100 * mean:.2f} %")
        columns = {name: f"parameter_{name}" if f"parameter_{name}" in rows else name for name in sweep.swept}
        drawn = plots.accuracy_by_parameter(rows, list(columns.values()))
        figure = {"png": b64encode(plots.png(drawn)[0]).decode(), "alt": drawn.alternative_text}
    page = _render(
        "sweep.html",
        title=sweep.notebook.title,
        swept=sweep.swept,
        defaults=sweep.defaults,
        done=[record for record in records if record["status"] == "done"],
        failed=[record for record in records if record["status"] == "failed"],
        missing=len(sweep.runs.keys() - {record["name"] for record in records}),
        notebooks={path.stem for path in (sweep.out / "runs").glob("*.ipynb")},
        accuracy=accuracy,
        figure=figure,
        as_text=as_text,
    )
    write_text(sweep.out / "sweep.html", page)
    return sweep.out / "sweep.html"


def _render(template: str, **values: Any) -> str:
    """Fill in a template; what comes from outside is escaped."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(autoescape=True, loader=PackageLoader("helpers.runner"))
    return environment.get_template(template).render(**values)


def _body(notebook: "NotebookNode", pages: dict[str, Any]) -> str:
    """Convert a notebook to an HTML fragment, its links to other lessons' notebooks to links to their pages."""
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    class OwnTemplates(HTMLExporter):
        """Takes the templates that come with nbconvert, where a user's of the same name would come first."""

        def get_prefix_root_dirs(self) -> list[str]:
            users = super().get_prefix_root_dirs()  # type: ignore[no-untyped-call]
            known = [os.path.join(sys.prefix, "share", "jupyter"), *users]
            return [next(root for root in known if Path(root, "nbconvert", "templates", "basic").is_dir())]

    notebook.metadata.pop("widgets", None)  # without its kernel, the widget of a progress bar would show 0 %
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    config = Config({"NbConvertBase": {"display_data_priority": SHOWN}})
    exporter = OwnTemplates(config=config, template_name="basic")  # type: ignore[no-untyped-call]
    body, _ = exporter.from_notebook_node(notebook)
    for name in pages:
        body = body.replace(f'href="{name}.ipynb', f'href="{name}.html')
    return body


def _code_style() -> str:
    """Return the CSS of highlighted code, for light and for dark screens."""
    from pygments.formatters import HtmlFormatter

    light, dark = (HtmlFormatter(style=name).get_style_defs("div.highlight") for name in ("xcode", "github-dark"))
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


def _key_figure(notebook: "NotebookNode") -> dict[str, str] | None:
    """Return the last PNG image, base64, of the cells tagged `key-figure`, with its alternative text."""
    tagged = [cell for cell in notebook.cells if "key-figure" in cell.metadata.get("tags", [])]
    outputs = [output for cell in tagged for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    if not outputs:
        return None
    alt = outputs[-1].metadata.get("image/png", {}).get("alt", "The key figure of this run")
    return {"png": "".join(outputs[-1].data["image/png"].split()), "alt": alt}
