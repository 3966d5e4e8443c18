"""A user's machine: other programs' settings, what it lacks, how full and slow it is; and what users write and keep.

`test_faults` counts these tests by kind.
"""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import distributed
import numpy as np
import papermill
import pytest
from click.testing import CliRunner
from nbclient import NotebookClient
from nbformat.v4 import new_markdown_cell, new_notebook
from refusals import covers, refused
from tiny_course import CHILD, outputs, record, run, save_npz, transfer_tutorial

from helpers import folders, store
from helpers.provenance import provenance
from helpers.runner import batch, cli, notebooks, pages, parameters, worker
from helpers.runner.notebooks import Notebook

fcntl, pwd = (pytest.importorskip(name) for name in ("fcntl", "pwd"))  # what is no Windows

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


@covers("settings of progress bars")
def test_a_setting_that_tqdm_cannot_read_is_left_out_and_others_stay(python):
    code = "import helpers, os\nfrom tqdm.auto import tqdm\nlist(tqdm([0]))\nprint(os.environ['TQDM_MININTERVAL'])"
    ran = python(code, TQDM_NCOLS="abc", TQDM_MININTERVAL="30")
    assert (ran.returncode, ran.stdout) == (0, "30\n"), ran.stderr
    assert python(code, TQDM_MININTERVAL="0.5", TQDM_ASCII="-#").stdout == "0.5\n"


@covers("templates of nbconvert")
def test_pages_take_the_templates_that_come_with_nbconvert(tmp_path: Path, monkeypatch):
    for template in ("basic", "classic", "base"):
        store.write_text(tmp_path / "nbconvert" / "templates" / template / "index.html.j2", "{% block any %}another")
        store.write_text(tmp_path / "nbconvert" / "templates" / template / "base.html.j2", "another")
        store.write_text(tmp_path / "nbconvert" / "templates" / template / "conf.json", "{")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    body = pages.body(new_notebook(cells=[new_markdown_cell("# Title")]))
    assert "<h1" in body and "Title" in body and "another" not in body


@covers("a Git hook's variables")
def test_the_commit_of_a_run_is_this_repositorys_in_a_git_hook_too(tmp_path: Path, monkeypatch):
    known = batch._made_with()["commit"]
    if known is None:
        pytest.skip("this is not a git repository")
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    assert batch._made_with()["commit"] == known


@covers("Python's variables")
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


DASKS = {
    "DISTRIBUTED__WORKER__PRELOAD": "nosuchmodule",
    "DISTRIBUTED__WORKER__LIFETIME__DURATION": "1s",
    "DISTRIBUTED__WORKER__MEMORY__TERMINATE": "0.001",
    "DISTRIBUTED__SCHEDULER__IDLE_TIMEOUT": "1s",
    "DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "0.01s",
    "DISTRIBUTED__DASHBOARD__LINK": "{nothing}",
    "TEMPORARY_DIRECTORY": "/dev/null/nothing",
}  # each alone is enough to break a sweep


def sweep_of(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Sweep a notebook of one's own, in a process of its own, as Dask reads its settings only once."""
    own = write_own(folder / "own.ipynb", "open('results-own.csv', 'w').write(f'test_accuracy\\n{seed}\\n')")
    command = ["sweep", own.path, "--grid", "seed=0", "--workers", "1", "--out", folder / "out"]
    return transfer_tutorial(folder, *command, **environment)


@covers("Dask's configuration")
@pytest.mark.sweep
def test_a_sweep_on_this_machine_takes_dask_as_it_comes(tmp_path: Path):
    done = sweep_of(tmp_path, **{f"DASK_{name}": value for name, value in DASKS.items()})
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "results.csv").read_text().count("\n") == 2


@covers("a damaged file of Dask's")
def test_a_damaged_file_of_dasks_is_named_in_one_sentence(tmp_path: Path):
    store.write_text(tmp_path / "dask" / "mine.yaml", "a: [")
    ended = sweep_of(tmp_path, DASK_CONFIG=str(tmp_path / "dask"))
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert ended.stderr.startswith("Error: A dask config file at ") and "mine.yaml' is malformed" in ended.stderr
    assert not (tmp_path / "out").exists()


@covers("workers that cannot be started")
def test_workers_that_cannot_be_started_are_one_sentence(tmp_path: Path, monkeypatch):
    def fail(**_: object) -> None:
        raise RuntimeError("Cluster failed to start:\nno more processes")

    monkeypatch.setattr(distributed, "LocalCluster", fail)
    own = write_own(tmp_path / "own.ipynb")
    ended = CliRunner().invoke(cli.main, ["sweep", str(own.path), "--grid", "seed=0", "--out", str(tmp_path / "out")])
    says = "Error: Dask cannot start its workers: RuntimeError: Cluster failed to start: no more processes"
    assert ended.exit_code == 1
    assert ended.output.splitlines()[-2:] == [says, "Nothing has run yet; the same command starts again"]
    assert not (tmp_path / "out").exists()


# What may be missing


@covers("standard streams, or who reads them")
@pytest.mark.notebook
def test_a_run_whose_streams_are_closed_is_done(course):
    reader, writer = os.pipe()
    os.close(reader)  # as in `transfer-tutorial run | true`
    code = "import os, sys; os.close(0); os.close(2); os.dup2(int(sys.argv.pop(1)), 1); "
    code += "os.execv(sys.executable, [sys.executable, '-c', *sys.argv[1:]])"
    command = [sys.executable, "-c", code, str(writer), CHILD, str(course), "run", "--only", "01", "--out", "run"]
    environ = {**os.environ, "PYTHONPATH": str(folders.REPOSITORY)}
    ended = subprocess.run([*command, "--dataset", "digits"], env=environ, pass_fds=[writer])
    os.close(writer)
    assert (ended.returncode, record("run")["status"]) == (0, "done")
    assert "digits 0" in outputs("run", "01_data")
    assert Path("run/index.html").is_file()


@covers("a user with a home")
def test_a_user_without_a_home_gets_one_for_caches(course, monkeypatch):
    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setenv("HOME", "")  # so that it is put back
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert run("--only", "09").exit_code == 2
    assert Path.home().is_dir()


@covers("the working directory")
def test_a_working_directory_that_is_gone_is_one_sentence(tmp_path: Path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for command in ("run", "sweep"):
        ended = CliRunner().invoke(
            cli.main, [command, *["own.ipynb"] * (command == "sweep"), "--out", str(tmp_path / "out")]
        )
        assert (ended.exit_code, ended.output) == (2, "Error: the folder that you are in is gone; cd to another\n")
    assert not (tmp_path / "out").exists()


@covers("TensorFlow's usual name")
def test_a_package_may_be_distributed_under_another_name(monkeypatch):
    known = metadata.version

    def version(name: str) -> str:
        if name == "tensorflow":
            raise metadata.PackageNotFoundError(name)
        return "2.99" if name == "tensorflow_cpu" else known(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"tensorflow": ["tensorflow_cpu"]})
    assert provenance()["versions"]["tensorflow"] == batch._made_with()["versions"]["tensorflow"] == "2.99"


# Users' values


@covers("numbers as Python writes them", "words of YAML 1.1")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[
            (word, word)
            for word in ("010", "1:30", "0x10", "0b1", "yes", "No", "on", "2026-01-01", "1.2.3", "nan", "=")
        ],
        *[("None", None), ("null", None), ("~", None), ("True", True), ("false", False)],
        *[("1_000", 1000), ("+1", 1), ("-0", 0), ("1.", 1.0), (".5", 0.5), ("-1e-3", -0.001), (".inf", float("inf"))],
        *[("1E3", 1000.0), ("-2e+5", -200000.0), ("1.e2", 100.0), ("02x", "02x"), ("e3", "e3")],
        *[("{a: 1, b: [x]}", {"a": 1, "b": ["x"]}), ("'010'", "010"), ('"1"', "1")],
    ],
)
def test_a_word_is_a_number_only_where_json_and_python_read_it_as_one(text: str, value: object):
    assert (parameters.read("any", text), type(parameters.read("any", text))) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    [
        "{1: a}",
        '[{"a": {1.5: b}}]',
        "!!binary aGk=",
        "!!set {a, b}",
        "!!timestamp 2026-01-01",
        "&a [*a]",
        "{[1]: 2}",
        "[" * 5000,
        "\udcff",
        '"\\ud800"',
        "{\udcff: 1}",
        "!!int x",
    ],
)
def test_a_value_that_would_reach_the_notebook_as_another_is_refused(text: str):
    with refused("any: ", " "):
        parameters.read("any", text)


@covers("very small classes")
def test_lesson_01_runs_on_classes_of_ten_images(tmp_path: Path):
    labels = np.repeat(np.arange(10), 10)
    images = np.random.default_rng(0).integers(0, 256, (100, 8, 8), np.uint8)
    save_npz(tmp_path / "few.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    given = {"dataset": str(tmp_path / "few.npz"), "validation_fraction": 0.2}
    parameters.check([notebooks.lesson("01")], given)
    first, *others = ("".join(cell["source"]) for cell in notebooks.code_cells(notebooks.lesson("01").path))
    names: dict[str, object] = {}
    for source in (first, *(f"{name} = {value!r}" for name, value in given.items()), *others):
        exec(source, names)


# Users' notebooks and files


@covers("any annotation", "IPython's commands among the parameters")
def test_parameters_may_have_any_annotation_and_text_and_stand_among_ipythons_own_commands(tmp_path: Path):
    commands = "%%time\nfiles: list[str] = !ls\nsize = %env HOME\n%matplotlib inline\n"
    first = f"{commands}seed = other = 3\nx, y = 1, 2\nlast: str\ndepth: int | None = 3\n"
    first += 'path: str = "a/date=1"  # a = b\nboth: list[int | str] = [1, "a"]'
    found = notebooks.defaults(write_own(tmp_path / "own.ipynb", first=first).path)
    assert (found.pop("path"), found.pop("both"), found.pop("depth")) == ("a/date=1", [1, "a"], 3)
    assert found == {"files": None, "size": None, "seed": 3, "other": 3, "last": None}


@covers("files in a folder beside a notebook")
def test_files_come_along_that_a_cell_with_commands_names_or_whose_folder_it_names(tmp_path: Path):
    for name in ("plain.csv", "data/d.csv", "data/not named.csv", "elsewhere/d.txt"):
        store.write_text(tmp_path / name, name)
    own = write_own(
        tmp_path / "own.ipynb", "%matplotlib inline\nopen('plain.csv')", "Path('data') / 'd.csv'", "%%bash\n'd.txt"
    )
    assert [name for name, _ in notebooks.named_files(own.path)] == ["data/d.csv", "plain.csv"]


@covers("a notebook in another language")
def test_a_notebook_in_another_language_is_refused(tmp_path: Path):
    kernel = {"kernelspec": {"name": "ir", "display_name": "R", "language": "R"}}
    write_own(tmp_path / "own.ipynb", metadata=kernel)
    with refused("notebook: ", "own.ipynb' is written in R; give one in Python"):
        notebooks.find(str(tmp_path / "own.ipynb"))


@covers("a kernelspec", "a notebook without metadata, or with a mark")
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


RUN = {"files": {}, "beside": {}, "environment": {}, "timeout": None, "memory": None, "version": worker.VERSION}


@covers("results with another delimiter", "results in another encoding")
@pytest.mark.notebook
@pytest.mark.parametrize(
    ("text", "encoding", "readable", "says"),
    [
        ("x;y\\n1,5;2\\n", "utf-8", 2, "results-a.csv has no commas between columns; write it with sep=','"),
        ("größe,y\\n1,2\\n", "latin-1", 1, "results-a.csv is not UTF-8 text; write it with encoding='utf-8'"),
    ],
)
def test_results_that_cannot_be_read_fail_their_run_whose_notebook_is_kept(tmp_path, text, encoding, readable, says):
    code = f"open('results-a.csv', 'w', encoding='{encoding}').write('{text}')\n"
    own = write_own(tmp_path / "own.ipynb", code + "open('results-b.csv', 'w').write('one\\n1;2\\n')")
    with pytest.raises(worker.RunError, match=re.escape(says)) as ended:
        worker.run_notebook({}, {"notebook": own.path.read_bytes(), **RUN})
    assert len(ended.value.outcome["results"]) == readable and ended.value.outcome["notebook"]


# Slow and crowded machines


@covers("a terminal that goes away")
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


@covers("a kernel that takes minutes to start")
def test_a_kernel_may_take_minutes_to_start(tmp_path: Path, monkeypatch):
    asked: dict[str, object] = {}
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **settings: asked.update(settings))
    notebooks.execute(write_own(tmp_path / "own.ipynb"), tmp_path / "out.ipynb", {})
    assert asked["start_timeout"] >= 600


@covers("output that comes late")
@pytest.mark.notebook
def test_what_a_cell_printed_may_come_late(tmp_path: Path, monkeypatch):
    client = NotebookClient.__init__

    def impatient(self: NotebookClient, notebook: object, **settings: object) -> None:
        client(self, notebook, **{"iopub_timeout": 0, **settings})  # seconds; 4 as it comes

    monkeypatch.setattr(NotebookClient, "__init__", impatient)
    late = "import time\nget_ipython().kernel.iopub_thread.schedule(lambda: time.sleep(0.5))\nprint('late')"
    notebooks.execute(write_own(tmp_path / "own.ipynb", late), tmp_path / "out.ipynb", {})
    assert printed(tmp_path / "out.ipynb") == "late\n"


@covers("a handle that must be writable to be flushed")
def test_a_file_is_flushed_by_a_handle_that_may_write(tmp_path: Path, monkeypatch):
    flushed = []

    def fsync(handle: int) -> None:  # Windows refuses one that is open for reading only
        flushed.append(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY)

    monkeypatch.setattr(os, "fsync", fsync)
    store.write_text(tmp_path / "text", "text")
    store.load_or_make(tmp_path, "weights.bin", {}, lambda path: {"bytes": path.write_bytes(b"weights")})
    assert flushed == [True] * 3


@covers("few files that may be open")
def test_few_files_that_may_be_open_are_raised_where_they_can_be_else_refused(tmp_path: Path, python):
    code = "from resource import RLIMIT_NOFILE, getrlimit, setrlimit; setrlimit(RLIMIT_NOFILE, {}); "
    code += "from helpers.runner.notebooks import allow_open_files; allow_open_files(); print(getrlimit(RLIMIT_NOFILE))"
    assert python(code.format((40, 1000))).stdout == "(256, 1000)\n"
    assert python(code.format((900, 1000))).stdout == "(900, 1000)\n"
    assert "ulimit -n: 40 files may be open at a time; a run needs 256" in python(code.format((40, 40))).stderr


@covers("a full disk before anything is written")
def test_a_disk_that_is_full_from_the_start_suggests_the_same_command_again(course, monkeypatch):
    def publish(temporary: Path, path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    arguments = "--only", "01", "--dataset", "digits", "--out", "full"
    with monkeypatch.context() as patched:
        patched.setattr(store, "_publish", publish)
        ended = run(*arguments)
    assert ended.exit_code == 1 and "No space left on device" in ended.output
    assert ended.output.endswith("Nothing has run yet; the same command starts again\n")
    assert run(*arguments, "--dry-run").exit_code == 0


@covers("an apostrophe in a command to paste", "a full disk")
@pytest.mark.parametrize("full", ["run.json", "01_data.ipynb", "results.csv", "01_data.html", "index.html"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(course, monkeypatch, full: str):
    publish = store._publish

    def publish_most(temporary: Path, path: Path) -> None:
        if path.name == full and (full != "run.json" or path.exists()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        publish(temporary, path)

    def execute(lesson: Notebook, output: Path, *_: object, **__: object) -> None:
        try:
            store.write_text(output, lesson.path.read_text())
        except OSError as error:
            raise notebooks.CellError(0, str(error)) from error

    monkeypatch.setattr(notebooks, "execute", execute)
    with monkeypatch.context() as patched:
        patched.setattr(store, "_publish", publish_most)
        ended = run("--only", "01", "--dataset", "digits", "--out", "it's full")
    said = ended.output[ended.output.index("Error: ") :]
    assert ended.exit_code == 1 and "No space left on device" in said and "Traceback" not in said
    assert said.endswith("""To go on: transfer-tutorial run --resume '""" + str(Path.cwd()) + """/it'"'"'s full'\n""")
    assert not [path for path in Path("it's full").rglob(".*")]
    assert run("--resume", "it's full").exit_code == 0
    assert record("it's full")["status"] == "done"
