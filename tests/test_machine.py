"""A user's machine: other programs' settings, what it lacks, how full and slow it is; and what users write and keep."""

import importlib
from pathlib import Path
from unittest.mock import MagicMock

import IPython
import numpy as np
import pandas as pd
from nbformat.v4 import new_markdown_cell, new_notebook

from helpers import artefacts, plots
from helpers.runner import report

# Settings of other programs


OPTIONS = {"display.max_rows": 2, "display.precision": 1, "display.float_format": "{:.0f}".format}
OPTIONS |= {
    "display.max_columns": 1,
    "display.html.border": 3,
    "styler.format.precision": 1,
    "mode.sim_interactive": True,
}


def test_tables_and_arrays_look_the_same_whatever_a_startup_file_or_an_earlier_cell_has_set():
    table = pd.DataFrame(np.arange(60).reshape(20, 3) / 7, columns=["first", "second", "third"])

    def shown() -> list[str]:
        return [repr(table), table._repr_html_(), table.style.to_html(uuid="same"), repr(table.to_numpy())]

    with pd.option_context("display.width", 80), np.printoptions():
        importlib.reload(plots)
        clean = shown()
        for option, value in OPTIONS.items():
            pd.set_option(option, value)
        np.set_printoptions(precision=1, threshold=2, suppress=True, linewidth=30, sign="+", formatter={"all": hex})
        importlib.reload(plots)
        assert shown() == clean
        assert not pd.get_option("mode.sim_interactive")


def test_the_last_value_of_a_cell_is_shown_whatever_ipython_is_told(monkeypatch):
    shell = MagicMock(ast_node_interactivity="none")
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    importlib.reload(plots)
    assert shell.ast_node_interactivity == "last_expr"


def test_what_matplotlib_says_of_a_users_settings_is_not_a_lessons_output(tmp_path: Path, python):
    (tmp_path / "matplotlibrc").write_text("no.such.setting: 1\n")
    ran = python("from helpers import plots", MATPLOTLIBRC=str(tmp_path / "matplotlibrc"))
    assert (ran.returncode, ran.stderr) == (0, "")


def test_pages_take_the_templates_that_come_with_nbconvert(tmp_path: Path, monkeypatch):
    for template in ("basic", "classic", "base"):
        artefacts.write_text(
            tmp_path / "nbconvert" / "templates" / template / "index.html.j2", "{% block any %}another"
        )
        artefacts.write_text(tmp_path / "nbconvert" / "templates" / template / "base.html.j2", "another")
        artefacts.write_text(tmp_path / "nbconvert" / "templates" / template / "conf.json", "{")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    body = report._body(new_notebook(cells=[new_markdown_cell("# Title")]), {})
    assert "<h1" in body and "Title" in body and "another" not in body
