"""The reports of a run and of a sweep: first the findings in words, then figures, tables and each notebook."""

from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from helpers import plots, statistics, wording
from helpers.runner import pages, parameters, sweep
from helpers.store import write_text
from helpers.tasks import budget_size

COMPARISON = "05"  # the lesson that compares strategies
COMPARED = ((COMPARISON, "target"), ("06", "photos"))  # lessons and tasks with a verdict; the first that ran is used
NUMBERS = ("seed", "test_errors", "test_accuracy", "train_seconds", "pretrain_seconds", "extract_seconds")
CHOOSING = ("seed", "seeds", "strategies", "labels_per_class")  # parameters that only select training runs
MOST_ANSWERS = 24  # on a sweep's page; a longer list is replaced by counts
NOT_MEASURED = ("seed", "fold", "strategy", "labels_per_class", "test_accuracy")  # or already shown
SETTINGS = ("optimizer", "learning_rate", "frozen_convs")  # columns that may differ within one lesson


def result_table(results: pd.DataFrame) -> pd.DataFrame:
    """Return mean test accuracies in percent, as text: a row per lesson, task and strategy, a column per label budget.

    `results` are the rows of `results.csv`, one per training run, as text; the column `seeds` counts the seeds.
    """
    by = ["lesson", "task", "strategy"]
    rows = results.assign(
        task=results["task"] + " " + results["classes"],
        strategy=strategies(results),
        test_accuracy=results["test_accuracy"].astype(float),
    )
    table = _accuracies(rows, by, lambda accuracies: f"{100 * accuracies.mean():.2f}")
    return table.assign(seeds=rows.groupby(by)["seed"].nunique()).reset_index()


def strategies(results: pd.DataFrame) -> pd.Series:
    """Return each row's strategy, followed by any setting in which otherwise equal training runs differ, so that these
    are not averaged.

    If a sweep varies the setting, training runs with the sweep's value keep the strategy's plain name.
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


def write_run(folder: Path, run: dict[str, Any], results: pd.DataFrame) -> Path:
    """Write `html/<lesson>.html` for each executed lesson, and `index.html`; return the path of `index.html`.

    `folder` is the run's folder, `run` the content of its `run.json`, and `results` the rows of its `results.csv`.
    """
    paths = {lesson["name"]: folder / "lessons" / f"{lesson['name']}.ipynb" for lesson in run["lessons"]}
    read = {name: nbformat.read(path, as_version=4) for name, path in paths.items() if path.is_file()}
    executed = [lesson for lesson in run["lessons"] if lesson["name"] in read]
    links = [("../index.html", "Results of this run"), *((f"{each['name']}.html", each["number"]) for each in executed)]
    figure = None
    for lesson in executed:
        notebook = read[lesson["name"]]
        page = pages.render("page.html", title=lesson["title"], links=links, body=pages.body(notebook, read))
        write_text(folder / "html" / f"{lesson['name']}.html", page)
        if figure is None and (shown := _key_figure(notebook)):
            figure = pages.figure(folder / "key-figure.png", *shown)
    compared = _compared(results)
    found, others = _answers(compared), results.drop(compared.index)
    if found.get("photos"):
        drawn = plots.errors_by_labels(statistics.summarize(compared, "photos"), "photos")
        figure = pages.figure(folder / "key-figure.png", plots.png(drawn)[0], drawn.alternative_text)
    numbers = [each["number"] for each in run["lessons"]]
    subject = "photos" if found.get("photos") else "dataset" if found else "my_images"
    data = run.get(subject) or run["dataset"] or {}
    what = "Transfer learning" if found else f"Lesson{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
    index = pages.render(
        "index.html",
        title=f"{what} on {data['name']}" if data else what,
        run=run,
        comparison=COMPARISON,
        source=next(iter(others.loc[others["task"] == "source", "classes"]), "other classes") if len(others) else "",
        executed=list(read),
        **found,
        others=result_table(others).to_html(index=False, border=0) if len(others) else "",
        figure=figure,
        facts={
            "Parameters": {name: value for lesson in run["lessons"] for name, value in lesson["parameters"].items()},
            "Versions": run["made_with"]["versions"],
            "Data and machine": {**data, **run["made_with"]["machine"]},
        },
    )
    write_text(folder / "index.html", index)
    return folder / "index.html"


def write_sweep(swept: sweep.Sweep, records: list[dict[str, Any]], results: pd.DataFrame) -> Path:
    """Write a sweep's `sweep.html`, with the verdicts, accuracy over the swept parameters, and a link to each executed
    notebook; return the page's path.

    `records` are those of runs that finished or failed; `results` are the rows of `results.csv`, as text.
    """
    held_in = {name: f"parameter_{name}" if f"parameter_{name}" in results else name for name in swept.varied}
    rows = results.assign(strategy=strategies(results) if "strategy" in results else "")
    if "task" in rows and (rows["task"] == "target").any():
        rows = rows[rows["task"] == "target"]
    numbers = rows.apply(pd.to_numeric, errors="coerce")
    figure, tables = None, list[pd.DataFrame]()
    measured = numbers.get("test_accuracy", pd.Series(dtype=float)).dropna()
    if len(measured):
        measured = rows.loc[measured.index].assign(test_accuracy=measured)
        axes = {", ".join(axis): [held_in[name] for name in axis] for axis in swept.axes}
        held = {f"axis {axis}": measured[columns].agg(", ".join, axis=1) for axis, columns in axes.items()}
        drawn = plots.accuracy_by_parameter(measured.assign(**held), dict(zip(axes, held, strict=True)))
        figure = pages.figure(swept.out / "accuracy.png", plots.png(drawn)[0], drawn.alternative_text)
        accuracies = _accuracies(measured, ["run", "strategy"])
        tables.append(accuracies.rename(columns=lambda budget: f"{budget} labels" if budget else "Test accuracy"))
    if not swept.notebook.number:
        own = [name for name in rows.columns[1 + rows.columns.get_loc("run_seconds") :] if name not in NOT_MEASURED]
        means = numbers[own].dropna(axis=1, how="all").groupby([rows["run"], rows["strategy"]], sort=False).mean()
        tables.append(means.map("{:.5g}".format).replace("nan", ""))
    table = pd.concat(tables, axis=1).fillna("") if tables else pd.DataFrame()
    if "strategy" in results and len(table):
        table = table.reset_index("strategy").rename(columns={"strategy": "Strategy"})
    settings = {name: column for name, column in held_in.items() if name not in CHOOSING}
    page = pages.render(
        "sweep.html",
        title=swept.notebook.title,
        swept=swept.varied,
        **{status: [each for each in records if each["status"] == status] for status in ("failed", "done")},
        names={record["name"]: sweep.label(swept, record) for record in records},
        missing=len(swept.runs) - len(records),
        executed={path.stem for path in (swept.out / "runs").glob("*.html")},
        verdicts=_verdicts(_compared(results), settings),
        columns=list(table),
        nothing=not any(record.get("results") for record in records),
        lines={run: of_run.to_numpy().tolist() for run, of_run in table.groupby(level=0)},
        figure=figure,
        record=swept.record,
    )
    write_text(swept.out / "sweep.html", page)
    return swept.out / "sweep.html"


def _compared(results: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that a verdict is about, with text turned into numbers; none if no lesson with a verdict ran."""
    columns = {"lesson", "task", "strategy", "labels_per_class", *NUMBERS}
    if not columns <= set(results):  # a custom notebook
        return results[:0]
    known = [results[(results["lesson"] == lesson) & (results["task"] == task)] for lesson, task in COMPARED]
    rows = next((rows for rows in known if len(rows)), results[:0])
    budgets = [budget if budget == "all" else int(budget) for budget in rows["labels_per_class"]]
    return rows.assign(labels_per_class=budgets).astype(dict.fromkeys(NUMBERS, float))


def _answers(rows: pd.DataFrame) -> dict[str, Any]:
    """Return a page's facts about a comparison: answers, table, classes, and the limits of its evidence."""
    if not len(rows):
        return {}
    task, table = rows["task"].iloc[0], _accuracies(rows, ["strategy"])
    summary, photos = statistics.summarize(rows, task), task == "photos"
    expected = ["scratch", "random-frozen"] if photos else parameters.strategy_meanings()
    return {
        "photos": photos,
        "headline": headline(summary),
        "answers": answers(summary, published=not photos),
        "untrained": [name for name in expected if name not in set(summary["strategy"])],
        "budgets": list(table),
        "accuracies": dict(zip(table.index, table.to_numpy().tolist(), strict=True)),
        "meanings": parameters.strategy_meanings(),
        "target": rows["classes"].iloc[0],
        "seeds": rows["seed"].nunique(),
    }


def headline(summary: pd.DataFrame) -> str:
    """Compare `frozen` with `scratch` in one sentence, which is empty if `frozen` was not trained."""
    frozen = summary[summary["strategy"] == "frozen"]
    budgets = frozen["labels_per_class"].map(str).groupby(frozen["finding"], sort=False).agg(", ".join)
    said = [f"with {where} labels per class: {finding}" for finding, where in budgets.items()]
    return f"frozen against scratch, {'; '.join(said)}" if said else ""


def answers(summary: pd.DataFrame, published: bool = True) -> list[tuple[str, str, str]]:
    """Answer the reader's questions, each with the finding, and with the numbers or the reason why there are none.

    The published conclusion, if wanted, comes first, then the comparison of `frozen` with `scratch` at each budget.
    """
    claim = statistics.published_claim(summary) if published else None
    said = [(f"Published claim, {name}", "", str(told)) for name, told in wording.claim(claim).items() if claim]
    for _, row in summary[summary["strategy"] == "frozen"].iterrows():
        question = f"frozen against scratch, {row['labels_per_class']} labels per class"
        said.append((question, *wording.verdict(row)))
    return said


def _verdicts(rows: pd.DataFrame, settings: dict[str, str]) -> list[tuple[str, str, str]]:
    """Compare `frozen` with `scratch` in each setting of a sweep and at each label budget, over all seeds. Each answer
    names the setting and budget, the finding, and the numbers; a long list is replaced by counts of findings.

    `settings` maps each parameter that is part of a setting to its column.
    """
    if not {"scratch", "frozen"} <= set(rows.get("strategy", [])):
        return []
    said, columns = list[tuple[str, str, str]](), list(settings.values())
    once = rows[rows["strategy"].isin(["scratch", "frozen"])]
    once = once.drop_duplicates([*columns, "strategy", "labels_per_class", "seed"])
    if len(once.drop_duplicates([*columns, "labels_per_class"])) > MOST_ANSWERS:
        found = statistics.findings(once, [*columns, "labels_per_class"])
        counts = found.groupby(level="labels_per_class", sort=False).value_counts()
        for budget, of_budget in counts.groupby(level=0, sort=False):
            often = "; ".join(f"{finding} in {count:,} settings" for (_, finding), count in of_budget.items())
            said.append((f"{budget} labels per class", "", often))
        return said
    for values, alike in once.groupby(columns, sort=False) if settings else [((), once)]:
        where = "".join(f"{name}={value}, " for name, value in zip(settings, values, strict=True))
        summary = statistics.summarize(alike, alike["task"].iloc[0])
        for _, row in summary[summary["strategy"] == "frozen"].iterrows():
            said.append((f"{where}{row['labels_per_class']} labels per class", *wording.verdict(row)))
    return said


def _accuracies(rows: pd.DataFrame, by: list[str], form: Callable[[Any], str] = wording.percent) -> pd.DataFrame:
    """Return test accuracies in percent as text: one row per group, with the strategies in their usual order, and one
    column per label budget. By default, each is the mean over the seeds and half of its 95% interval.
    """
    rows = rows.assign(**{name: "" for name in ("labels_per_class", "seed") if name not in rows})
    groups = [*by, "labels_per_class"]
    by_seed = rows.groupby([*groups, "seed"], sort=False)["test_accuracy"].mean()
    table = by_seed.groupby(level=groups, sort=False).agg(form).unstack(fill_value="")
    order = {name: rows[name].unique() for name in by} | {"strategy": statistics.in_order(rows["strategy"])}
    table = table.sort_index(key=lambda values: pd.CategoricalIndex(values, order[values.name]))
    return table[sorted(table, key=budget_size)].rename_axis(columns=None)


def _key_figure(notebook: nbformat.NotebookNode) -> tuple[bytes, str] | None:
    """Return the last PNG image of the cells tagged `key-figure`, with its alternative text."""
    tagged = [cell for cell in notebook.cells if "key-figure" in cell.metadata.get("tags", [])]
    outputs = [output for cell in tagged for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    if not outputs:
        return None
    alt = outputs[-1].metadata.get("image/png", {}).get("alt", "The key figure of this run")
    return b64decode(outputs[-1].data["image/png"]), alt
