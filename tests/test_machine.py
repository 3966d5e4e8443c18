"""A user's machine: other programs' settings, missing parts, a full disk, slowness, and users' own input."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import distributed
import pytest
from click.testing import CliRunner
from nbclient import NotebookClient
from refusals import refused
from tiny_course import CHILD, outputs, printed, record, run, transfer_tutorial, write_notebook

from helpers import folders, provenance, store
from helpers.runner import batch, cli, notebooks, parameters, process, worker
from helpers.runner.notebooks import KernelSettings, Notebook

pwd = pytest.importorskip("pwd")  # not on Windows

# Settings of other programs


def test_a_setting_that_tqdm_cannot_read_is_left_out_and_others_stay(python):
    code = "import helpers, os\nfrom tqdm.auto import tqdm\nlist(tqdm([0]))\nprint(os.environ['TQDM_MININTERVAL'])"
    ran = python(code, TQDM_NCOLS="abc", TQDM_MININTERVAL="30")
    assert (ran.returncode, ran.stdout) == (0, "30\n"), ran.stderr
    assert python(code, TQDM_MININTERVAL="0.5", TQDM_ASCII="-#").stdout == "0.5\n"


# Notebooks in their own kernels

FACTS = """
import json, os, time, warnings
from ipykernel import get_connection_info
warnings.warn("under PYTHONWARNINGS=error this would stop the notebook")
open("written.txt", "w").write("é")
facts = {"seed": seed, "rate": rate, "backend": os.environ["MPLBACKEND"], "debug": __debug__}
get_ipython().kernel.iopub_thread.schedule(lambda: time.sleep(0.5))  # so that what is printed comes late
print(json.dumps(facts | json.loads(get_connection_info())))
"""


def write_incomplete(path: Path) -> Path:
    """Write a notebook without optional fields, with a byte-order mark, and executed earlier with a rate."""
    cells = [{"cell_type": "code", "source": "seed, rate = 0, 0", "metadata": {"tags": ["parameters"]}}]
    cells += [{"cell_type": "code", "source": "rate = 5", "metadata": {"tags": ["injected-parameters"]}}]
    cells += [{"cell_type": "code", "source": FACTS.splitlines(keepends=True)}]
    cells += [{"cell_type": "code"}, {"cell_type": "markdown"}]
    path.write_text(json.dumps({"cells": cells, "nbformat": 4}), encoding="utf-8-sig")
    return path


@pytest.mark.notebook
@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_an_incomplete_notebook_runs_in_a_clean_kernel_on_a_slow_machine(tmp_path: Path, monkeypatch, transport: str):
    for name, value in {
        "PYTHONWARNINGS": "error",
        "PYTHONOPTIMIZE": "1",
        "PYTHONIOENCODING": "ascii",
        "PYTHONUTF8": "0",
        "LC_ALL": "C",
        "MPLBACKEND": "nonsense",
    }.items():
        monkeypatch.setenv(name, value)
    if transport == "tcp":  # if the path is too long for a socket, ports are the fallback
        long = tmp_path / ("long" * 30)
        long.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(long))
    client, asked = NotebookClient.__init__, {}

    def impatient(self: NotebookClient, notebook: object, **settings: object) -> None:
        asked.update(settings)
        client(self, notebook, **{"iopub_timeout": 0, **settings})  # 4 seconds by default

    monkeypatch.setattr(NotebookClient, "__init__", impatient)
    own = notebooks.find(str(write_incomplete(tmp_path / "its {own} 100%.ipynb")))
    assert notebooks.defaults(own.path) == {"rate": 5}
    notebooks.execute(own, tmp_path / "out.ipynb", {"seed": 7}, KernelSettings(folder=tmp_path))
    facts = json.loads(next(line for line in printed(tmp_path / "out.ipynb").splitlines() if line.startswith("{")))
    assert (facts["seed"], facts["rate"]) == (7, 5), "the value given now, and the one given before"
    assert facts["backend"].endswith("inline") and facts["debug"]
    assert (tmp_path / "written.txt").read_bytes() == "é".encode()
    assert asked["startup_timeout"] >= 600, "a kernel may take minutes to start"
    assert facts["transport"] == transport, "kernels that start at once can take no port from each other"
    assert not Path(facts["ip"]).parent.exists() or transport == "tcp"
    assert not list(tmp_path.glob("long*/*"))


@pytest.mark.parametrize(
    ("text", "encoding", "readable", "says"),
    [
        ("x;y\n1,5;2\n", "utf-8", 2, "results-a.csv has no commas between columns; write it with sep=','"),
        ("größe,y\n1,2\n", "latin-1", 1, "results-a.csv is not UTF-8 text; write it with encoding='utf-8'"),
    ],
)
def test_results_that_cannot_be_read_fail_their_run_whose_notebook_is_kept(
    tmp_path: Path, monkeypatch, text: str, encoding: str, readable: int, says: str
):
    def execute(notebook: Notebook, output: Path, values: dict, settings: KernelSettings) -> None:
        output.write_bytes(notebook.path.read_bytes())
        (settings.folder / "results-a.csv").write_text(text, encoding=encoding)
        (settings.folder / "results-b.csv").write_text("one\n1;2\n")

    monkeypatch.setattr(notebooks, "execute", execute)
    own = write_notebook(tmp_path / "own.ipynb", "seed: int = 0")
    payload = {"notebook": own.read_bytes(), "files": {}, "beside": {}, "environment": {}}
    with pytest.raises(worker.RunError, match=re.escape(says)) as ended:
        worker.run_notebook({}, {**payload, "timeout": None, "memory": None, "store": None, "version": worker.VERSION})
    assert len(ended.value.outcome["results"]) == readable and ended.value.outcome["notebook"]


# Dask


def sweep_of(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Sweep a notebook in a separate process, because Dask reads its settings only once."""
    code = "open('results-own.csv', 'w').write(f'test_accuracy\\n{seed}\\n')"
    own = write_notebook(folder / "own.ipynb", "seed: int = 0", code)
    command = ["sweep", own, "--grid", "seed=0", "--workers", "1", "--out", folder / "out"]
    return transfer_tutorial(folder, *command, **environment)


@pytest.mark.sweep
def test_a_sweep_on_this_machine_ignores_dasks_configuration(tmp_path: Path):
    settings = {  # each of these alone would break a sweep
        "DISTRIBUTED__WORKER__PRELOAD": "nosuchmodule",
        "DISTRIBUTED__WORKER__LIFETIME__DURATION": "1s",
        "DISTRIBUTED__WORKER__MEMORY__TERMINATE": "0.001",
        "DISTRIBUTED__SCHEDULER__IDLE_TIMEOUT": "1s",
        "DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "0.01s",
        "DISTRIBUTED__DASHBOARD__LINK": "{nothing}",
        "TEMPORARY_DIRECTORY": "/dev/null/nothing",
    }
    done = sweep_of(tmp_path, **{f"DASK_{name}": value for name, value in settings.items()})
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "results.csv").read_text().count("\n") == 2


def test_a_damaged_file_of_dasks_is_named_in_one_sentence(tmp_path: Path):
    store.write_text(tmp_path / "dask" / "mine.yaml", "a: [")
    ended = sweep_of(tmp_path, DASK_CONFIG=str(tmp_path / "dask"))
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert ended.stderr.startswith("Error: A dask config file at ") and "mine.yaml' is malformed" in ended.stderr
    assert not (tmp_path / "out").exists()


def test_workers_that_cannot_be_started_are_one_sentence(tmp_path: Path, monkeypatch):
    def fail(**_: object) -> None:
        raise RuntimeError("Cluster failed to start:\nno more processes")

    monkeypatch.setattr(distributed, "LocalCluster", fail)
    own = write_notebook(tmp_path / "own.ipynb", "seed: int = 0")
    ended = CliRunner().invoke(cli.main, ["sweep", str(own), "--grid", "seed=0", "--out", str(tmp_path / "out")])
    says = "Error: Dask cannot start its workers: RuntimeError: Cluster failed to start: no more processes"
    assert ended.exit_code == 1
    assert ended.output.splitlines()[-2:] == [says, "Nothing has run yet; repeat the same command"]
    assert not (tmp_path / "out").exists()


# Missing parts of a machine


def test_letters_that_a_terminal_cannot_show_are_written_in_another_way(python):
    code = "from helpers.runner import process; process.prepare(); print('cat \\u732b')"
    done = python(code, PYTHONIOENCODING="cp1252", PYTHONUTF8="0")
    assert (done.returncode, done.stdout) == (0, "cat \\u732b\n"), done.stderr


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


def test_a_user_without_a_home_gets_one_for_caches(course, monkeypatch):
    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setenv("HOME", "")  # so that it is restored
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert run("--only", "09").exit_code == 2
    assert Path.home().is_dir()


def test_variables_that_name_files_become_absolute_as_kernels_work_elsewhere(course, monkeypatch):
    monkeypatch.setenv("MNIST_NPZ", "mnist.npz")
    assert run("--only", "09").exit_code == 2
    assert os.environ["MNIST_NPZ"] == str(Path("mnist.npz").absolute())


def test_a_working_directory_that_is_gone_is_one_sentence(tmp_path: Path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for command in ("run", "sweep"):
        ended = CliRunner().invoke(
            cli.main, [command, *["own.ipynb"] * (command == "sweep"), "--out", str(tmp_path / "out")]
        )
        assert (ended.exit_code, ended.output) == (2, "Error: the current folder is gone; cd to a different one\n")
    assert not (tmp_path / "out").exists()


def test_a_package_may_be_distributed_under_another_name(monkeypatch):
    known = metadata.version

    def version(name: str) -> str:
        if name == "tensorflow":
            raise metadata.PackageNotFoundError(name)
        return "2.99" if name == "tensorflow_cpu" else known(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"tensorflow": ["tensorflow_cpu"]})
    versions = provenance._trained_with.__wrapped__()["versions"]  # without its cache
    assert versions["tensorflow"] == batch._made_with()["versions"]["tensorflow"] == "2.99"


# Users' input


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(word, word) for word in ("010", "1:30", "0x10", "yes", "2026-01-01", "nan", "02x", "e3")],
        *[("None", None), ("~", None), ("True", True), ("false", False)],
        *[("1_000", 1000), ("-0", 0), ("1.", 1.0), ("-1e-3", -0.001), ("1E3", 1000.0), (".inf", float("inf"))],
        *[("{a: 1, b: [x]}", {"a": 1, "b": ["x"]}), ("'010'", "010"), ('"1"', "1")],
    ],
)
def test_a_word_is_a_number_only_where_json_and_python_read_it_as_one(text: str, value: object):
    assert (parameters.read("any", text), type(parameters.read("any", text))) == (value, type(value))


@pytest.mark.parametrize("text", ["{1: a}", "!!binary aGk=", "&a [*a]", "[" * 5000, '"\\ud800"', "!!int x"])
def test_a_value_that_would_reach_the_notebook_as_another_is_refused(text: str):
    with refused("any: ", " "):
        parameters.read("any", text)


def test_parameters_may_have_any_annotation_and_text_and_stand_among_ipythons_own_commands(tmp_path: Path):
    commands = "%%time\nfiles: list[str] = !ls\nsize = %env HOME\n%matplotlib inline\n"
    first = f"{commands}seed = other = 3\nx, y = 1, 2\nlast: str\ndepth: int | None = 3\ncomputed = 10**-3\n"
    first += 'path: str = "a/date=1"  # a = b\nboth: list[int | str] = [1, "a"]\nfew = range(3)'
    own = notebooks.find(str(write_notebook(tmp_path / "own.ipynb", first)))
    defaults = notebooks.defaults(own.path)
    assert (defaults.pop("path"), defaults.pop("both"), defaults.pop("depth")) == ("a/date=1", [1, "a"], 3)
    assert defaults == {
        "files": None,
        "size": None,
        "seed": 3,
        "other": 3,
        "last": None,
        "computed": None,
        "few": [0, 1, 2],
    }
    for value in (0.5, "text"):  # a computed default doesn't determine a type
        parameters.check([own], {"computed": value})


def test_files_come_along_that_a_cell_with_commands_names_or_whose_folder_it_names(tmp_path: Path):
    for name in ("plain.csv", "data/d.csv", "data/not named.csv", "elsewhere/d.txt", "results-own.csv"):
        store.write_text(tmp_path / name, name)
    cells = ("%matplotlib inline\nopen('plain.csv')", "Path('data') / 'd.csv'", "%%bash\n'd.txt", "'results-own.csv'")
    own = write_notebook(tmp_path / "own.ipynb", "seed: int = 0", *cells)
    assert [name for name, _ in notebooks.named_files(own)] == ["data/d.csv", "plain.csv"]


def test_a_notebook_in_another_language_is_refused(tmp_path: Path):
    path = write_notebook(tmp_path / "own.ipynb", "seed = 0")
    path.write_text(path.read_text().replace('"language": "python"', '"language": "R"'))
    with refused("notebook: ", "own.ipynb' is written in R; use one in Python"):
        notebooks.find(str(path))


# Slow and crowded machines


def test_a_terminal_that_goes_away_stops_a_run_but_not_under_nohup():
    def heard(*_: object) -> None:
        """Stand in for the default action, which ends the program."""

    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with process.signals_as_exit() as received:
            os.kill(os.getpid(), signal.SIGHUP)
            assert received == []
        signal.signal(signal.SIGHUP, heard)
        with pytest.raises(SystemExit) as stopped, process.signals_as_exit() as received:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(1)
        assert (stopped.value.code, received) == (128 + signal.SIGHUP, [signal.SIGHUP])
        assert signal.getsignal(signal.SIGHUP) == heard
    finally:
        signal.signal(signal.SIGHUP, before)


def test_few_files_that_may_be_open_are_raised_where_they_can_be_else_refused(tmp_path: Path, python):
    code = "from resource import RLIMIT_NOFILE, getrlimit, setrlimit; setrlimit(RLIMIT_NOFILE, {}); "
    code += "from helpers.runner.process import allow_open_files; allow_open_files(); print(getrlimit(RLIMIT_NOFILE))"
    assert python(code.format((40, 1000))).stdout == "(256, 1000)\n"
    assert python(code.format((900, 1000))).stdout == "(900, 1000)\n"
    assert "ulimit -n: a limit of 40 open files is too low; raise it to 256" in python(code.format((40, 40))).stderr
