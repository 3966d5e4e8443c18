"""The pages of a report: their contents, their escaping, and that they load nothing."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from matplotlib.image import imread
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from small import result_rows

from helpers import statistics
from helpers.runner import batch, report
from helpers.runner.notebooks import Notebook
from helpers.runner.sweep import Sweep
from helpers.transfer import STRATEGIES

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WIDGET = "application/vnd.jupyter.widget-view+json"
LOADING = ("src", "srcset", "poster", "data", "action")  # attributes that make a browser load something
COLUMNS = ["lesson", "task", "classes", "strategy", "labels_per_class", "seed", "learning_rate", "test_accuracy"]
RUN = {
    "status": "done",
    "started": "2025-01-01T00:00:00+00:00",
    "dataset": {"name": "<i>digits</i>", "sha256": "0" * 64},
    "made_with": {"versions": {"python": "3.11"}, "machine": {"threads": 2}, "commit": None},
    "lessons": [
        {"number": "01", "name": "01_a", "title": "A & <b>", "status": "done", "seconds": 1.5, "parameters": {}},
        {"number": "02", "name": "02_b", "title": "B", "status": "not run", "parameters": {"a": "<script>1</script>"}},
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    figure = new_output("display_data", data={"image/png": PNG}, metadata={"image/png": {"alt": 'a "rising" line'}})
    bar = new_output("display_data", data={WIDGET: {"model_id": "1"}, "text/plain": "  0%|    | 0/3"})
    links = "Next is [02](02_b.ipynb), as in [A](01_a.ipynb#part). ![far](https://example.org/far.png)"
    error = new_output("error", ename="E", evalue="<u>", traceback=["\x1b[31mE\x1b[0m: <u>"])
    cells = [
        new_markdown_cell(f"# A\n\n{links}"),
        new_code_cell("'<b>'", outputs=[new_output("stream", text="<script>alert(1)</script>\n")]),
        new_code_cell("bar", outputs=[bar]),
        new_code_cell("figure", outputs=[figure], metadata={"tags": ["key-figure"]}),
        new_code_cell("fail", outputs=[error]),
    ]
    state = {"application/vnd.jupyter.widget-state+json": {"state": {"1": {}}, "version_major": 2, "version_minor": 0}}
    (tmp_path / "lessons").mkdir()
    nbformat.write(new_notebook(cells=cells, metadata={"widgets": state}), tmp_path / "lessons" / "01_a.ipynb")
    return tmp_path


ROWS = pd.DataFrame(
    [
        ("05", "source", "5 6", "scratch", "all", "0", "", "0.99"),
        ("05", "target", "0 1", "scratch", "all", "0", "", "0.98"),
        ("05", "target", "0 1", "scratch", "all", "1", "", "0.96"),
        ("05", "target", "0 1", "scratch", "10", "0", "", "0.5"),
        ("05", "target", "0 1", "frozen", "10", "0", "", "0.75"),
    ],
    columns=COLUMNS,
)


ERRORS = dict(zip(STRATEGIES, (50, 30, 30, 35, 90, 50), strict=True))  # out of 1,000


def compared(strategies=tuple(ERRORS), budgets=("10", "all"), seeds=(0, 1, 2)) -> pd.DataFrame:
    """Return lesson 05's rows as in `results.csv`, with strategies in any order and gains that scatter by 2 errors."""
    columns = ["task", "classes", "strategy", "labels_per_class", "seed", "test_errors", "pretrain_seconds"]
    rows = [("source", "5 6", "scratch", "all", 0, 50, 0.0)]
    for seed in seeds:
        for strategy in reversed(strategies):
            errors = ERRORS[strategy] + 10 * seed + 2 * (seed % 2) * (strategy != "scratch")
            pretraining = 0.0 if strategy in ("scratch", "random-frozen") else 9.0
            rows += [("target", "0 1", strategy, budget, seed, errors, pretraining) for budget in budgets]
    table = pd.DataFrame(rows, columns=columns).assign(lesson="05", extract_seconds=0.5)
    table["test_accuracy"] = 1 - table["test_errors"] / 1000
    return table.assign(train_seconds=2.0 + (table["strategy"] == "scratch")).astype(str)


def names_a_best(text: str) -> bool:
    """Tell whether a text calls something best, except in the sentence that says when nothing is."""
    text = text.lower().replace("without an interval, nothing is called better", "")
    return any(word in text for word in ("best", "most accurate", "highest", "better", "times the errors", "hurts"))


class Tags(HTMLParser):
    """Collect a page's start tags with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text: str) -> None:
        self.text += text


def test_the_table_has_a_mean_per_strategy_and_budget_in_ascending_order():
    table = report.result_table(ROWS)
    assert list(table.columns) == ["lesson", "task", "strategy", "10", "all", "seeds"]
    assert table.to_numpy().tolist() == [
        ["05", "source 5 6", "scratch", "", "99.00", 1],
        ["05", "target 0 1", "scratch", "50.00", "97.00", 2],
        ["05", "target 0 1", "frozen", "75.00", "", 1],
    ]
    assert report.result_table(compared())["strategy"].tolist() == ["scratch", *ERRORS]  # regardless of the rows' order


def pretrained_at(*rates: str) -> pd.DataFrame:
    """Return rows of lesson 03, with training runs that differ in their learning rate."""
    return pd.DataFrame(
        [("03", "source", "5 6", "scratch", "all", "0", rate, "0.9") for rate in rates], columns=COLUMNS
    )


def test_trainings_that_differ_in_a_setting_are_not_averaged():
    table = report.result_table(pretrained_at("0.001", "1.0").assign(test_accuracy=["0.64", "0.99"]))
    assert table["strategy"].tolist() == ["scratch, learning_rate 0.001", "scratch, learning_rate 1"]
    assert table["all"].tolist() == ["64.00", "99.00"]


def test_a_sweep_over_a_setting_averages_no_baseline_with_what_is_swept():
    rows = pretrained_at("0.001", "0.5", "0.001", "1.0").assign(run=["a", "a", "b", "b"])
    swept, other = "scratch", "scratch, learning_rate 0.001"
    assert report.strategies(rows.assign(parameter_learning_rate=["0.5", "0.5", "1.0", "1.0"])).tolist() == [
        *(other, swept, other, swept)
    ]
    assert report.strategies(rows).tolist()[1::2] == ["scratch, learning_rate 0.5", "scratch, learning_rate 1"]


def test_the_index_opens_with_the_verdict_then_the_figure_and_the_table_of_the_comparison(folder):
    other = compared().assign(lesson="03", task="source")
    page = report.write_run(folder, RUN, pd.concat([other, compared()], ignore_index=True)).read_text()
    parts = (
        "<em>scratch</em> is an ordinary network",
        "Frozen against scratch, with 10, all labels per class: better.",
        "reused-head with all labels per class",
        "with pretraining, times faster</dt><dd>0.3<",
        "<strong>helps</strong>: 0.67 times the errors",
        f"data:image/png;base64,{PNG}",
        "<h2>Test accuracy",
        "<h2>Lessons",
        "<details><summary>Other training runs",
        "<details><summary>Parameters",
    )
    positions = [page.index(part) for part in parts]
    assert positions == sorted(positions)
    table = page[page.index("<h2>Test accuracy") : page.index("<h2>Lessons")]
    assert re.findall('class="what">([a-z-]+)', table) == list(ERRORS)
    assert re.search(r"95\.93 ± \d\.\d\d</td>", table) and "5 6" not in table
    assert "What this run cannot tell" not in page
    assert 'href="key-figure.png"' in page and (folder / "key-figure.png").read_bytes().startswith(b"\x89PNG")
    assert 'href="html/01_a.html"' in page
    assert 'href="html/02_b.html"' not in page  # a lesson that did not run has no page


def summary_of(errors: dict[int | str, list[int]]) -> pd.DataFrame:
    """Return a summary of made-up errors of `frozen` by label budget; `scratch` makes 30, 32, 34 of 1,000."""
    tables = []
    for budget, counts in errors.items():
        tables.append(result_rows("frozen", counts, budget, train_seconds=2.0, pretrain_seconds=3.0))
        tables.append(result_rows("scratch", [30, 32, 34][: len(counts)], budget, train_seconds=4.0))
    return statistics.summarize(pd.concat(tables))


def test_the_answers_say_what_was_asked_and_the_headline_groups_label_budgets():
    summary = summary_of({10: [10, 13, 14], 50: [10, 13, 14], "all": [10, 33, 60]})
    assert report.headline(summary) == (
        "frozen against scratch, with 10, 50 labels per class: better; "
        "with all labels per class: no detectable difference"
    )
    (*_, checked), (*_, accurate), (*_, faster), (*_, in_all), *compared = report.answers(summary)
    assert checked == "frozen with all labels per class" and accurate.startswith("no detectable difference")
    assert (faster, in_all) == ("2.0", "0.8")
    assert [question for question, *_ in compared] == [
        f"frozen against scratch, {budget} labels per class" for budget in (10, 50, "all")
    ]


def test_one_seed_tells_nothing_and_without_frozen_there_is_no_headline():
    assert report.headline(summary_of({10: [10]})) == "frozen against scratch, with 10 labels per class: cannot tell"
    alone = summary_of({50: [30]}).query("strategy == 'scratch'")
    assert (report.headline(alone), report.answers(alone)) == ("", [])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (compared(seeds=[0]), "one seed gives no interval"),
        (compared(["frozen", "random-frozen"]), "scratch, the ordinary network for comparison, was not trained"),
        (
            compared(["scratch", "random-frozen"]),
            "How well frozen, head-first, fine-tuned, reused-head would do: this run did not train them",
        ),
        (compared(["scratch"], budgets=["10", "50"]), "random-frozen, the control, was not trained"),
        (compared(["scratch"], budgets=["10", "50"]), "this run used at most 50 per class"),
        (compared(["scratch"], budgets=["all"]), "when labels are few"),
    ],
)
def test_a_page_says_what_cannot_be_told_and_names_no_best(folder, rows, said):
    text = " ".join(Tags(report.write_run(folder, RUN, rows).read_text()).text.split())
    assert "What this run cannot tell" in text
    assert said in text
    assert not names_a_best(text)


def test_without_the_comparison_a_page_says_what_was_run_and_nothing_else(folder):
    for rows in (ROWS[:0], compared().assign(lesson="03")):
        text = Tags(report.write_run(folder, RUN, rows).read_text()).text
        assert "Lessons 01, 02 on <i>digits</i>" in text
        for word in ("scratch is", "Does that help", "cannot tell", "Published claim"):
            assert word not in text
    without = {**RUN["lessons"][0], "number": "05", "status": "failed", "cell": 3, "error": "broken"}
    failed = report.write_run(folder, {**RUN, "status": "failed", "lessons": [without]}, ROWS[:0]).read_text()
    assert failed.index("broken") < failed.index("saved no results, so there is no verdict") < failed.index("<h2>")


def test_lesson_06_alone_has_its_verdict_its_figure_and_the_name_of_the_photos(folder):
    rows = compared(("scratch", "frozen", "random-frozen")).replace(
        {"target": "photos", "05": "06", "0 1": "ants bees"}
    )
    lessons = [{**RUN["lessons"][1], "number": "06"}]
    page = report.write_run(folder, {**RUN, "photos": {"name": "my_photos"}, "lessons": lessons}, rows).read_text()
    text = " ".join(Tags(page).text.split())
    assert "Transfer learning on my_photos A network learns to tell ants bees apart." in text
    assert "MobileNet learned on the photos of ImageNet" in text and "0.67 times the errors" in text
    assert "Published" not in text and "cannot tell" not in text
    (figure,) = [attributes for tag, attributes in Tags(page).tags if tag == "img"]
    assert figure["alt"].startswith("Errors by labels per class, mean of 3 seeds")


def swept(folder: Path, runs: dict[str, dict[str, object]], *parameters: str) -> tuple[Sweep, list[dict[str, object]]]:
    """Return a sweep of lesson 05 with these runs, all finished, and their records."""
    defaults = {"seeds": [0, 1, 2], "recipe": "fast", "filters": 32}
    lesson = Notebook("05", "05_a", "Compare", folder / "05_a.ipynb")
    done = {"status": "done", "seconds": 1.0, "results": ["some"]}
    records = [{**done, "name": name, "parameters": given} for name, given in runs.items()]
    record = {"commands": [], "started": "", "made_with": {"versions": {}, "machine": {}, "commit": None}}
    axes = tuple((name,) for name in parameters)
    return Sweep(lesson, "", defaults, {}, {}, axes, parameters, runs, folder, record), records


def test_a_sweep_over_seeds_takes_them_together_and_names_no_seed_as_best(folder):
    runs = {f"run{seed}": {"seeds": [seed]} for seed in (0, 1, 2)}
    rows = [compared(seeds=[seed]).assign(run=f"run{seed}", seeds=f"[{seed}]") for seed in (0, 1, 2)]
    page = report.write_sweep(*swept(folder, runs, "seeds"), pd.concat(rows, ignore_index=True)).read_text()
    assert "<strong>helps</strong>: 0.67 times the errors" in page
    (figure,) = [attributes for tag, attributes in Tags(page).tags if tag == "img"]
    assert "means of 3 seeds with 95% intervals" in figure["alt"] and "by seed" in figure["alt"]
    assert not names_a_best(figure["alt"])
    assert (folder / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert (
        re.findall("<td>(scratch|frozen|head-first|fine-tuned|random-frozen|reused-head)</td>", page)
        == list(ERRORS) * 3
    )


def test_a_sweep_gives_each_setting_and_budget_its_verdict_and_counts_many(folder):
    def page(count: int) -> str:
        runs = {f"run{filters}": {"seeds": [0], "filters": filters} for filters in range(32, 32 + count)}
        rows = [compared().assign(run=name, filters=str(given["filters"])) for name, given in runs.items()]
        return report.write_sweep(*swept(folder, runs, "filters"), pd.concat(rows, ignore_index=True)).read_text()

    few, many = page(2), page(20)
    assert re.findall("<dt>(.+?)</dt>", few) == [
        f"filters={filters}, {budget} labels per class" for filters in (32, 33) for budget in ("10", "all")
    ]
    assert re.findall("<dt>(.+?)</dt><dd>(.+?)</dd>", many) == [
        (f"{budget} labels per class", "better in 20 settings") for budget in ("10", "all")
    ]
    assert ">filters=32</a>" not in few and "filters=32</th>" in few  # without a notebook there is no link


def test_a_sweep_of_one_seed_names_no_best(folder):
    runs = {name: {"seeds": [0], "recipe": name} for name in ("fast", "published")}
    rows = [compared(seeds=[0]).assign(run=name, recipe=name) for name in runs]
    page = report.write_sweep(*swept(folder, runs, "recipe"), pd.concat(rows, ignore_index=True)).read_text()
    assert "one seed gives no interval" in page
    assert not names_a_best(Tags(page).text)


def test_what_comes_from_parameters_and_names_is_escaped(folder):
    index = report.write_run(folder, RUN, ROWS).read_text()
    page = (folder / "html" / "01_a.html").read_text()
    for text in ("&lt;script&gt;1&lt;/script&gt;", "A &amp; &lt;b&gt;", "&lt;i&gt;digits"):
        assert text in index
    assert not {"script", "u", "b", "i"} & {tag for html in (index, page) for tag, _ in Tags(html).tags}


def test_pages_load_nothing_from_other_hosts_forbid_it_and_have_alternative_texts(folder):
    report.write_run(folder, RUN, ROWS)
    for path in (folder / "index.html", folder / "html" / "01_a.html"):
        html = path.read_text()
        assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in html
        assert not re.search(r"@import|url\(", html)
        assert 'a "rising" line' in [attributes.get("alt") for tag, attributes in Tags(html).tags if tag == "img"]
        for tag, attributes in Tags(html).tags:
            assert tag not in ("script", "link", "iframe", "object", "embed")
            loaded = [attributes[name] for name in LOADING if name in attributes]
            assert all(url.startswith("data:") or url == "https://example.org/far.png" for url in loaded)


def test_a_page_links_to_pages_alone_and_shows_no_dead_widgets(folder):
    report.write_run(folder, {**RUN, "lessons": RUN["lessons"][:1]}, ROWS)
    page = Tags((folder / "html" / "01_a.html").read_text())
    assert [attributes["href"] for tag, attributes in page.tags if tag == "a" and "class" not in attributes] == [
        *("../index.html", "01_a.html", "01_a.html#part")  # lesson 02 has no page: its name stays, without a link
    ]
    assert "Next is 02, as in A." in page.text
    assert "0%|" not in page.text
    assert "widget" not in page.text


def test_a_training_that_a_lesson_takes_from_an_earlier_one_stands_once_in_the_results(tmp_path):
    earlier, own = compared(), compared(["frozen"]).assign(lesson="06", task="photos")
    later = pd.concat([earlier.assign(lesson="06"), own])
    (tmp_path / "artefacts").mkdir()
    for number, rows in (("05", earlier), ("06", later)):
        rows.to_csv(tmp_path / "artefacts" / f"results-{number}.csv", index=False)
    lessons = [{"number": number, "status": "done"} for number in ("05", "06")]
    rows = batch.write_results(batch.Run(tmp_path, {"lessons": lessons}, []))
    assert rows["lesson"].tolist() == ["05"] * len(earlier) + ["06"] * len(own)
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1 + len(rows)


def trees(folder: Path, results: str) -> Path:
    """Write the page for a sweep of a custom notebook with these rows from two runs; return its path."""
    runs = {"shallow": {"filters": 1}, "deep": {"filters": 2}}
    planned, records = swept(folder, runs, "filters")
    planned = replace(planned, notebook=Notebook("", "trees", "Trees", folder / "trees.ipynb"))
    for record in records:
        record["results"] = [results] * bool(results)
    rows = pd.DataFrame({"run": [*runs], "filters": ["1", "2"], "run_seconds": "1.0"})
    if results:
        own = pd.read_csv(io.StringIO(results), dtype=str)
        rows = rows.join(own)
    return report.write_sweep(planned, records, rows)


def test_own_columns_are_shown_and_a_sweep_without_results_says_so(folder):
    page = trees(folder, "auc,rmse,kind\n0.91,12345.6,a\n0.9,3.25,b\n").read_text()
    assert re.findall("<th>(\\w+)</th>", page)[:4] == ["Run", "auc", "rmse", "Seconds"]
    assert re.findall("<td>([^<]+)</td>", page)[:4] == ["0.91", "12346", "0.9", "3.25"]
    said = "No run saved results. A notebook saves them as results-<name>.csv in its working directory."
    assert said in Tags(trees(folder, "").read_text()).text and said not in page


@pytest.mark.browser
def test_a_click_on_a_columns_name_sorts_the_runs_best_first_whichever_way_is_better(folder, browser):
    page = browser.new_page()
    page.goto(trees(folder, "auc,rmse\n0.91,2\n0.9,3.25\n").as_uri())

    def order(column: str) -> list[str]:
        page.get_by_role("columnheader", name=column).click()
        return page.locator("tbody .what").all_inner_texts()

    up, down = ["filters=1", "filters=2"], ["filters=2", "filters=1"]
    assert [order("rmse"), order("rmse"), order("auc"), order("auc")] == [down, up, up, down]
    page.close()


@pytest.mark.browser
def test_a_page_fits_its_window_and_follows_the_color_scheme(folder, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(report.write_run(folder, RUN, compared()).as_uri(), wait_until="networkidle")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        paper = imread(io.BytesIO(page.screenshot()))[0, 0, :3].mean()
        color = page.evaluate("getComputedStyle(document.body).color")
        ink = sum(map(int, re.findall(r"\d+", color)[:3])) / 3 / 255
        assert (paper > 0.9 and ink < 0.2) if scheme == "light" else (paper < 0.2 and ink > 0.8)
    page.close()
