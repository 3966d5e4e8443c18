"""The report of a run: one HTML page per executed lesson, and an index with the results first; and that of a sweep.

The pages load nothing from anywhere, neither script nor font nor image, and tell the browser to enforce that.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from nbformat import NotebookNode

    from helpers.sweep import Sweep

TITLE = "Transfer learning, lesson by lesson"
WIDGET = "application/vnd.jupyter.widget-view+json"
SHOWN = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain")  # what needs no script
SETTINGS = ("optimizer", "learning_rate", "frozen_convs")  # columns in which trainings of one lesson may differ

STYLE = """
:root { color-scheme: light dark; --line: #d0d7de; --link: #0550ae; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --line: #3d444d; --link: #79b8ff; --bad: #ff8a80; } }
body { font: 1rem/1.55 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
a { color: var(--link); }
nav { display: flex; gap: 1.5rem; flex-wrap: wrap; }
pre, code { font: .875rem/1.45 ui-monospace, monospace; }
pre, .wide, .output_html { overflow-x: auto; }
code { overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figure { margin: 1.5rem 0; }
blockquote { border-left: 4px solid var(--line); margin-left: 0; padding-left: 1rem; }
table { border: 0; border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { border: 0; border-bottom: 1px solid var(--line); padding: .25rem .75rem; text-align: left; }
.dataframe th, .dataframe td { text-align: right; }
.input_area { border: 1px solid var(--line); border-radius: 4px; padding: 0 .75rem; }
div.highlight { background: transparent !important; }
.prompt { font: .75rem ui-monospace, monospace; }
.output_error, .failed, .interrupted { color: var(--bad); }
.anchor-link { text-decoration: none; margin-left: .4rem; font-size: .7em; opacity: .6; }
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>{{ style|safe }}</style>
</head>
<body>
{% block content %}
<nav><a href="../index.html">Results of this run</a>
{% for other in run.lessons if other.name in pages %}<a href="{{ other.name|urlencode }}.html">{{ other.number }}</a>
{% endfor %}</nav>
<main>{{ body|safe }}</main>
{% endblock %}
</body>
</html>
"""

INDEX = """{% extends "page" %}
{% block content %}
<main>
<h1>{{ title }}</h1>
<p>A run{% if run.dataset %} on {{ run.dataset.name }}{% endif %}, started {{ run.started }}:
<strong class="{{ run.status }}">{{ run.status }}</strong>.
{% for lesson in run.lessons if lesson.error %}Lesson {{ lesson.name }}, cell [{{ lesson.cell }}]:
<code>{{ lesson.error }}</code>{% endfor %}</p>
{% if table %}<h2>Results</h2>
<p>Mean test accuracy in percent over the seeds, by training images (labels) per class.</p>
<div class="wide">{{ table|safe }}</div>{% endif %}
{% if figure %}<figure><img src="data:image/png;base64,{{ figure.png }}" alt="{{ figure.alt }}">
<figcaption>{{ figure.alt }}</figcaption></figure>{% endif %}
<h2>Lessons</h2>
<div class="wide"><table><tr><th>Lesson</th><th>Status</th><th>Seconds</th><th>Notebook</th></tr>
{% for lesson in run.lessons %}<tr>
{% if lesson.name in pages %}<td><a href="html/{{ lesson.name|urlencode }}.html">{{ lesson.title }}</a></td>
{% else %}<td>{{ lesson.title }}</td>{% endif %}
<td class="{{ lesson.status }}">{{ lesson.status }}</td><td>{{ lesson.seconds }}</td>
<td>{% if lesson.name in pages %}<a href="lessons/{{ lesson.name|urlencode }}.ipynb">ipynb</a>{% endif %}</td>
</tr>{% endfor %}</table></div>
{% for heading, values in facts.items() %}<h2>{{ heading }}</h2>
<div class="wide"><table>
{% for name, value in values.items() %}<tr><th>{{ name }}</th><td><code>{{ value }}</code></td></tr>
{% endfor %}</table></div>
{% endfor %}
<p>Each training is a row of <a href="results.csv">results.csv</a>.
<a href="run.json">run.json</a> says how to repeat the run.</p>
</main>
{% endblock %}
"""

SWEEP = """{% extends "page" %}
{% block content %}
<main>
<h1>{{ title }}</h1>
<p>A sweep over {{ swept|join(", ") }}: {{ done|length }} runs finished,
<span {% if failed %}class="failed"{% endif %}>{{ failed|length }} failed</span>, {{ missing }} to go.</p>
{% if figure %}<figure><img src="data:image/png;base64,{{ figure.png }}" alt="{{ figure.alt }}">
<figcaption>{{ figure.alt }}</figcaption></figure>{% endif %}
{% for heading, listed in (("Failed", failed), ("Finished", done)) if listed %}<h2>{{ heading }}</h2>
<div class="wide"><table><tr><th>Notebook</th>{% for name in swept %}<th>{{ name }}</th>{% endfor %}
<th>Seconds</th><th>{% if heading == "Failed" %}Error{% else %}Mean test accuracy{% endif %}</th></tr>
{% for record in listed %}<tr>
<td>{% if record.name in notebooks %}<a href="runs/{{ record.name|urlencode }}.ipynb">{{ record.name[-12:] }}</a>
{%- else %}none{% endif %}</td>
{% for name in swept %}<td>{{ as_text(record.parameters.get(name, defaults[name])) }}</td>{% endfor %}
<td>{{ record.seconds }}</td>
<td>{% if record.error %}{% if record.cell %}cell [{{ record.cell }}]: {% endif %}<code>{{ record.error }}</code>
{%- else %}{{ accuracy.get(record.name, [])|join("; ") }}{% endif %}</td>
</tr>{% endfor %}</table></div>
{% endfor %}
<p>Each row of results is in <a href="results.csv">results.csv</a>.</p>
</main>
{% endblock %}
"""


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
    """Return the strategy of each row, and the settings in which trainings of a run that are else alike differ beside
    it, so that these are not averaged.

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


def write(folder: Path, run: dict[str, Any], results: "pd.DataFrame") -> Path:
    """Write `html/<lesson>.html` for each lesson executed and `index.html`; return the path of the latter.

    `folder` is that of the run, `run` what its `run.json` says, `results` the rows of its `results.csv`.
    """
    import nbformat
    from jinja2 import DictLoader, Environment

    from helpers.runs import write_text

    environment = Environment(autoescape=True, loader=DictLoader({"page": PAGE, "index": INDEX}))
    paths = {lesson["name"]: folder / "lessons" / f"{lesson['name']}.ipynb" for lesson in run["lessons"]}
    pages = {name: nbformat.read(path, as_version=4) for name, path in paths.items() if path.is_file()}
    shared = {"run": run, "pages": pages, "style": STYLE + _code_style()}
    figure = None
    for lesson in run["lessons"]:
        if notebook := pages.get(lesson["name"]):
            page = environment.get_template("page").render(title=lesson["title"], body=_body(notebook, pages), **shared)
            write_text(folder / "html" / f"{lesson['name']}.html", page)
            figure = _key_figure(notebook) or figure
    index = environment.get_template("index").render(
        title=TITLE,
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
    from base64 import b64encode

    import pandas as pd
    from jinja2 import DictLoader, Environment

    from helpers import plots
    from helpers.runs import write_text
    from helpers.sweep import as_text

    figure, accuracy = None, {}
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
    environment = Environment(autoescape=True, loader=DictLoader({"page": PAGE, "sweep": SWEEP}))
    page = environment.get_template("sweep").render(
        title=sweep.lesson.title,
        style=STYLE,
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


def _body(notebook: "NotebookNode", pages: dict[str, Any]) -> str:
    """Convert a notebook to an HTML fragment, its links to other lessons' notebooks to links to their pages."""
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    notebook.metadata.pop("widgets", None)  # without its kernel, the widget of a progress bar would show 0 %
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    config = Config({"NbConvertBase": {"display_data_priority": SHOWN}})
    body, _ = HTMLExporter(config=config, template_name="basic").from_notebook_node(notebook)
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
