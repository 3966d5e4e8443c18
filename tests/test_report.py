"""The pages of a report: what they show, what they escape, and that they load nothing."""

import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.runner import report

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
        {
            "number": "01",
            "name": "01_a",
            "title": "A & <b>",
            "status": "done",
            "seconds": 1.5,
            "parameters": {"seed": 0},
        },
        {
            "number": "02",
            "name": "02_b",
            "title": "B",
            "status": "not run",
            "parameters": {"dataset": "<script>1</script>"},
        },
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    figure = new_output("display_data", data={"image/png": PNG}, metadata={"image/png": {"alt": 'a "rising" line'}})
    bar = new_output("display_data", data={WIDGET: {"model_id": "1"}, "text/plain": "  0%|    | 0/3"})
    cells = [
        new_markdown_cell(
            "# A\n\nNext is [02](02_b.ipynb), as in [A](01_a.ipynb#part). ![far](https://example.org/far.png)"
        ),
        new_code_cell("'<b>'", outputs=[new_output("stream", text="<script>alert(1)</script>\n")]),
        new_code_cell("bar", outputs=[bar]),
        new_code_cell("figure", outputs=[figure], metadata={"tags": ["key-figure"]}),
        new_code_cell(
            "fail", outputs=[new_output("error", ename="E", evalue="<u>", traceback=["\x1b[31mE\x1b[0m: <u>"])]
        ),
    ]
    state = {"application/vnd.jupyter.widget-state+json": {"state": {"1": {}}, "version_major": 2, "version_minor": 0}}
    (tmp_path / "lessons").mkdir()
    nbformat.write(new_notebook(cells=cells, metadata={"widgets": state}), tmp_path / "lessons" / "01_a.ipynb")
    return tmp_path


def results(*rows: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS, dtype=str)


ROWS = results(
    ("05", "source", "5 6", "scratch", "all", "0", "", "0.99"),
    ("05", "target", "0 1", "scratch", "all", "0", "", "0.98"),
    ("05", "target", "0 1", "scratch", "all", "1", "", "0.96"),
    ("05", "target", "0 1", "scratch", "10", "0", "", "0.5"),
    ("05", "target", "0 1", "frozen", "10", "0", "", "0.75"),
)


class Tags(HTMLParser):
    """All start tags of a page, with their attributes, and its text."""

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


def test_trainings_that_differ_in_a_setting_are_not_averaged():
    row = ("03", "source", "5 6", "scratch", "all", "0")
    table = report.result_table(results((*row, "0.001", "0.64"), (*row, "1.0", "0.99")))
    assert table["strategy"].tolist() == ["scratch, learning_rate 0.001", "scratch, learning_rate 1"]
    assert table["all"].tolist() == ["64.00", "99.00"]


def test_a_sweep_over_a_setting_averages_no_baseline_with_what_is_swept():
    row = ("03", "source", "5 6", "scratch", "all", "0")
    rows = results(*((*row, rate, "0.9") for rate in ("0.001", "0.5", "0.001", "1.0"))).assign(run=["a", "a", "b", "b"])
    assert report.strategies(rows.assign(parameter_learning_rate=["0.5", "0.5", "1.0", "1.0"])).tolist() == [
        *("scratch, learning_rate 0.001", "scratch", "scratch, learning_rate 0.001", "scratch")
    ]
    assert report.strategies(rows).tolist()[1::2] == ["scratch, learning_rate 0.5", "scratch, learning_rate 1"]


def test_the_index_shows_results_and_key_figure_before_the_lessons(folder):
    index = report.write_run(folder, RUN, ROWS).read_text()
    positions = [
        index.index(part) for part in ("97.00", f"data:image/png;base64,{PNG}", "<h2>Lessons", "<h2>Parameters")
    ]
    assert positions == sorted(positions)
    assert "a &#34;rising&#34; line" in index
    assert 'href="html/01_a.html"' in index
    assert 'href="html/02_b.html"' not in index  # a lesson that did not run has no page


def test_what_comes_from_parameters_and_names_is_escaped(folder):
    index = report.write_run(folder, RUN, ROWS).read_text()
    page = (folder / "html" / "01_a.html").read_text()
    for text in ("&lt;script&gt;1&lt;/script&gt;", "A &amp; &lt;b&gt;", "&lt;i&gt;digits"):
        assert text in index
    assert "A &amp; &lt;b&gt;" in page
    assert not {"script", "u", "b", "i"} & {tag for html in (index, page) for tag, _ in Tags(html).tags}


def test_pages_load_nothing_from_other_hosts_and_forbid_it(folder):
    report.write_run(folder, RUN, ROWS)
    for path in (folder / "index.html", folder / "html" / "01_a.html"):
        html = path.read_text()
        assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in html
        assert not re.search(r"@import|url\(", html)
        for tag, attributes in Tags(html).tags:
            assert tag not in ("script", "link", "iframe", "object", "embed")
            loaded = [attributes[name] for name in LOADING if name in attributes]
            assert all(url.startswith("data:") or url == "https://example.org/far.png" for url in loaded)


def test_images_have_alternative_text_and_pages_both_colour_schemes(folder):
    report.write_run(folder, RUN, ROWS)
    for path in (folder / "index.html", folder / "html" / "01_a.html"):
        html = path.read_text()
        assert "color-scheme: light dark" in html
        assert "prefers-color-scheme: dark" in html
        assert 'a "rising" line' in [attributes.get("alt") for tag, attributes in Tags(html).tags if tag == "img"]


def test_a_page_links_to_pages_and_shows_no_dead_widgets(folder):
    report.write_run(folder, {**RUN, "lessons": RUN["lessons"][:1]}, ROWS)
    page = (folder / "html" / "01_a.html").read_text()
    assert 'href="01_a.html#part"' in page
    assert "0%|" not in page
    assert "widget" not in page


def test_a_run_without_results_has_an_index(folder):
    index = report.write_run(folder, {**RUN, "dataset": None}, results()).read_text()
    assert "<h2>Results" not in index
    assert "<h2>Lessons" in index
