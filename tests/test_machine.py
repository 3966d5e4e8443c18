"""A user's machine: other programs' settings, what it lacks, how full and slow it is; and what users write and keep."""

import importlib
import json
import os
import signal
import time
from pathlib import Path
from unittest.mock import MagicMock

import IPython
import numpy as np
import pandas as pd
import papermill
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_markdown_cell, new_notebook
from refusals import refused

from helpers import artefacts, plots
from helpers.runner import notebooks, report, worker
from helpers.runner.notebooks import Notebook

fcntl = pytest.importorskip("fcntl")  # what is no Windows

EMPTY = {"metadata": {}, "outputs": [], "execution_count": None}


def write_own(path: Path, *sources: str, first: str = "seed: int = 0", **top: object) -> Notebook:
    """Write a notebook of one's own, whose first cell is tagged parameters; return it."""
    cells = [{"cell_type": "code", **EMPTY, "source": source} for source in (first, *sources)]
    cells[0]["metadata"] = {"tags": ["parameters"]}
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4, **top}))
    return Notebook("", path.stem, path.stem, path)


def printed(executed: Path) -> str:
    """Return all that the cells of an executed notebook printed."""
    return "".join(
        t for cell in notebooks.code_cells(executed) for each in cell["outputs"] for t in each.get("text", "")
    )


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


@pytest.mark.notebook
def test_variables_of_python_and_matplotlib_do_not_reach_a_kernel(tmp_path: Path, monkeypatch):
    for name, value in {
        "PYTHONWARNINGS": "error",
        "PYTHONOPTIMIZE": "1",
        "PYTHONIOENCODING": "ascii",
        "PYTHONUTF8": "0",
        "LC_ALL": "C",
        "MPLBACKEND": "nonsense",
    }.items():
        monkeypatch.setenv(name, value)
    code = "import os, warnings\nwarnings.warn('x')\nopen('own.txt', 'w').write('é')\nassert __debug__\n"
    own = write_own(tmp_path / "own.ipynb", code + "print(os.environ['MPLBACKEND'], __debug__, open('own.txt').read())")
    notebooks.execute(own, tmp_path / "out.ipynb", {}, folder=tmp_path)
    assert "inline True é\n" in printed(tmp_path / "out.ipynb")
    assert (tmp_path / "own.txt").read_bytes() == "é".encode()


# Users' notebooks and files


def test_parameters_stand_among_ipythons_own_commands_too(tmp_path: Path):
    first = "%%time\nfiles = !ls\nsize = %env HOME\n%matplotlib inline\nseed = other = 3\nx, y = 1, 2\nlast: str"
    own = write_own(tmp_path / "own.ipynb", first=first)
    assert notebooks.defaults(own.path) == {"files": None, "size": None, "seed": 3, "other": 3, "last": None}


def test_files_come_along_that_a_cell_with_commands_names_or_whose_folder_it_names(tmp_path: Path):
    for name in ("plain.csv", "data/d.csv", "data/not named.csv", "elsewhere/d.txt"):
        artefacts.write_text(tmp_path / name, name)
    own = write_own(
        tmp_path / "own.ipynb", "%matplotlib inline\nopen('plain.csv')", "Path('data') / 'd.csv'", "%%bash\n'd.txt"
    )
    assert [name for name, _ in notebooks.named_files(own.path)] == ["data/d.csv", "plain.csv"]


def test_a_notebook_in_another_language_is_refused(tmp_path: Path):
    kernel = {"kernelspec": {"name": "ir", "display_name": "R", "language": "R"}}
    write_own(tmp_path / "own.ipynb", metadata=kernel)
    with refused("notebook: ", "own.ipynb' is written in R; give one in Python"):
        notebooks.find(str(tmp_path / "own.ipynb"))


@pytest.mark.notebook
def test_a_notebook_may_lack_all_that_is_empty_and_be_saved_with_a_mark(tmp_path: Path):
    cells = [{"cell_type": "code", "source": "seed = 0", "metadata": {"tags": ["parameters"]}}]
    cells += [{"cell_type": "code", "source": ["print(\n", "seed)"]}, {"cell_type": "code"}, {"cell_type": "markdown"}]
    path = tmp_path / "its {own} 100%.ipynb"
    path.write_text(json.dumps({"cells": cells, "nbformat": 4}), encoding="utf-8-sig")
    found = notebooks.find(str(path))
    assert notebooks.defaults(found.path) == {"seed": 0}
    notebooks.execute(found, tmp_path / "out.ipynb", {"seed": 5})
    assert printed(tmp_path / "out.ipynb") == "5\n"


@pytest.mark.notebook
def test_results_without_commas_fail_their_run_and_say_so(tmp_path: Path):
    code = "open('results-a.csv', 'w').write('x;y\\n1,5;2\\n')\nopen('results-b.csv', 'w').write('one\\n1;2\\n')"
    own = write_own(tmp_path / "own.ipynb", code)
    settings = {
        "files": {},
        "beside": {},
        "environment": {},
        "timeout": None,
        "memory": None,
        "version": worker.VERSION,
    }
    with pytest.raises(
        worker.RunError, match=r"^results-a.csv has no commas between columns; write it with sep=','$"
    ) as ended:
        worker.run_notebook({}, {"notebook": own.path.read_bytes(), **settings})
    assert len(ended.value.outcome["results"]) == 2 and ended.value.outcome["notebook"]


# Slow and crowded machines


def test_a_terminal_that_goes_away_stops_a_run_but_not_under_nohup():
    def heard(*_: object) -> None:
        """Stand for what a program does otherwise, which is to end."""

    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with notebooks.signals_as_exit() as received:
            os.kill(os.getpid(), signal.SIGHUP)
            assert received == []
        signal.signal(signal.SIGHUP, heard)
        with pytest.raises(SystemExit) as stopped, notebooks.signals_as_exit() as received:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(1)
        assert (stopped.value.code, received) == (128 + signal.SIGHUP, [signal.SIGHUP])
        assert signal.getsignal(signal.SIGHUP) == heard
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_kernel_may_take_minutes_to_start(tmp_path: Path, monkeypatch):
    asked: dict[str, object] = {}
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **settings: asked.update(settings))
    notebooks.execute(write_own(tmp_path / "own.ipynb"), tmp_path / "out.ipynb", {})
    assert asked["start_timeout"] >= 600


@pytest.mark.notebook
def test_what_a_cell_printed_may_come_late(tmp_path: Path, monkeypatch):
    client = NotebookClient.__init__

    def impatient(self: NotebookClient, notebook: object, **settings: object) -> None:
        client(self, notebook, **{"iopub_timeout": 0, **settings})  # seconds; 4 as it comes

    monkeypatch.setattr(NotebookClient, "__init__", impatient)
    late = "import time\nget_ipython().kernel.iopub_thread.schedule(lambda: time.sleep(0.5))\nprint('late')"
    notebooks.execute(write_own(tmp_path / "own.ipynb", late), tmp_path / "out.ipynb", {})
    assert printed(tmp_path / "out.ipynb") == "late\n"


def test_a_file_is_flushed_by_a_handle_that_may_write(tmp_path: Path, monkeypatch):
    flushed = []

    def fsync(handle: int) -> None:  # Windows refuses one that is open for reading only
        flushed.append(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY)

    monkeypatch.setattr(os, "fsync", fsync)
    artefacts.write_text(tmp_path / "text", "text")
    artefacts.save(tmp_path, "weights", {}, ".bin", lambda path: path.write_bytes(b"weights"))
    assert flushed == [True] * 3
