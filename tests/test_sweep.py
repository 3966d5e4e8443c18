"""Sweeps, with real Dask processes and real kernels on a tiny notebook of one's own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
from click.testing import CliRunner, Result
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image
from refusals import covers
from tiny_course import LISTEN, wait_until

from helpers import store
from helpers.datasets import load_dataset
from helpers.folders import REPOSITORY
from helpers.runner import cluster, notebooks, parameters, sweep
from helpers.runner.cli import main

PARAMETERS = """
learning_rate: float = 1.0  # step size
seed: int = 0  # every random draw
labels_per_class: list = [10, "all"]  # label budgets
optimizer = "adam"  # no annotation
weights = None  # anything
data: str = ""  # a file
log: str = ""  # a folder that gets a file per run
seconds: float = 0.0  # how long the run lasts
"""
CODE = """
import os, time
from pathlib import Path

time.sleep(seconds)
if log: Path(log, str(time.time_ns())).write_text(os.getcwd())
print(optimizer, labels_per_class, Path(data).read_text() if data else "")
if learning_rate > 1: raise ValueError(f"<b>{learning_rate}</b>\\ndiverged")
rows = [f"target,{strategy},{seed},{0.5 + seed / 20}" for strategy in ("scratch", "frozen")]
Path("results-own.csv").write_text("\\n".join(["task,strategy,seed,test_accuracy", *rows]) + "\\n")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A notebook of one's own in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # workers import the package from here, as from an installation
    return write_notebook(tmp_path / "my notebook.ipynb")


def write_notebook(path: Path, code: str = CODE, parameters: str = PARAMETERS) -> Path:
    cells = [new_markdown_cell("# My <i>own</i>"), new_code_cell(parameters.strip()), new_code_cell(code.strip())]
    cells[1].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["sweep", *map(str, arguments)], catch_exceptions=False)  # what is no message fails


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """Start a sweep as a process of its own; one that is left when the test ends is stopped."""
    started = []

    def starter(*arguments: object) -> subprocess.Popen:
        code = f"{LISTEN}from helpers.runner.cli import main; main()"
        command = [sys.executable, "-c", code, "sweep", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, start_new_session=True, **pipes))
        return started[-1]

    yield starter
    for process in started:
        process.kill()
        process.communicate()


def statuses(folder: str | Path) -> dict[str, str]:
    """What became of each run, by the part of its name that says its parameters."""
    found = [json.loads(path.read_text()) for path in sorted(Path(folder, "runs").glob("*.json"))]
    return {record["name"].rpartition("-")[0]: record["status"] for record in found}


def results(folder: str | Path) -> pd.DataFrame:
    return pd.read_csv(Path(folder, "results.csv"), dtype=str, keep_default_na=False)


@contextmanager
def dask_cluster(folder: Path, workers: int = 1, **environment: str) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """Start a scheduler and workers as one does by hand; yield the address and the processes, scheduler first."""
    folder.mkdir(exist_ok=True)
    told = folder / "scheduler.json"
    environ = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "3", **environment}
    options = {"cwd": folder, "env": environ, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    local = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    processes = [
        subprocess.Popen([*dask, "scheduler", *local, "--port", "0", "--scheduler-file", str(told)], **options)
    ]
    try:
        # Dask does not write it at one stroke
        wait_until(lambda: told.is_file() and told.read_text().endswith("}"), 60)
        address = json.loads(told.read_text())["address"]
        one = ["--nworkers", "1", "--nthreads", "1", "--no-nanny", "--local-directory", str(folder)]
        for _ in range(workers):
            processes.append(subprocess.Popen([*dask, "worker", address, *local, *one], **options))
        from distributed import Client

        with Client(address) as client:
            client.wait_for_workers(workers, timeout=60)
        yield address, processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_grid_is_checked_and_laid_out_in_order(own):
    lesson = notebooks.find(str(own))
    grid = {"seed": [0, 1], "labels_per_class": [[10], ["all"]]}
    planned = sweep.plan(lesson, grid, {"optimizer": "sgd"}, Path("out"), many=False)
    assert [name.rpartition("-")[0] for name in planned.runs] == [
        *("labels_per_class=_10_,optimizer=sgd", "labels_per_class=_all_,optimizer=sgd"),
        *("seed=1,labels_per_class=_10_,optimizer=sgd", "seed=1,labels_per_class=_all_,optimizer=sgd"),
    ]
    assert list(planned.runs.values())[1] == {"optimizer": "sgd", "seed": 0, "labels_per_class": ["all"]}
    assert not Path("out").exists()


def test_a_run_is_named_by_parameters_data_and_code_and_not_by_outputs(own):
    def names(**given):
        return list(sweep.plan(notebooks.find(str(own)), {"seed": [0, 1]}, given, Path("out"), many=False).runs)

    first = names()
    assert len(set(first)) == 2
    assert set(names(optimizer="sgd")).isdisjoint(first)
    assert set(names(optimizer="学" * 200)).isdisjoint(first)
    assert max(len(name.encode()) for name in names(optimizer="学" * 200)) < 200, "a file can have this name"
    assert names(learning_rate=1) == first, "a whole number is a number"
    assert names(learning_rate=1.0) == first, "what is the default need not be given"
    notebook = nbformat.read(own, as_version=4)
    notebook.cells[0].source = "# Another heading"
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="printed")]
    nbformat.write(notebook, own)
    assert names() == first
    Path("a.txt").write_text("one")
    with_data = names(data="a.txt")
    Path("a.txt").write_text("two")
    assert set(names(data="a.txt")).isdisjoint(with_data)
    write_notebook(own, CODE + "\nprint('more')")
    assert set(names()).isdisjoint(first)


@covers("a run that fails among others")
def test_three_runs_work_one_fails_and_the_same_command_runs_what_is_missing(own):
    Path("data.txt").write_text("came along")
    Path("log").mkdir()
    shared = ["-p", "data", "data.txt", "-p", "log", Path("log").absolute(), "--workers", 1, "--out", "out"]
    rates = "0.1,0.2,0.3,7"
    done = run(own, "--grid", f"learning_rate={rates}", *shared)
    assert done.exit_code == 1
    assert "my notebook: 4 runs, 0 of them done" in done.output
    assert "http://127.0.0.1:" in done.output
    (message,) = [line for line in done.output.splitlines() if line.startswith("Error")]
    assert message.startswith("Error: 1 of 4 runs failed, learning_rate=7.0,data=data.txt,")
    assert message.endswith(": ValueError: <b>7.0</b> diverged")
    assert "Estimate: none before the first run has finished" in done.output
    rows = results("out")
    assert len(rows) == 3 * 2
    assert list(rows.columns) == [
        *("run", "data", "log", "learning_rate", "run_seconds", "task", "strategy", "seed", "test_accuracy")
    ]
    folders = [path.read_text() for path in Path("log").iterdir()]
    assert len(folders) == len(set(folders)) == 4
    assert not any(Path(folder).exists() for folder in folders)
    page = Path("out/sweep.html").read_text()
    assert "ValueError: &lt;b&gt;7.0&lt;/b&gt; diverged" in page
    assert "<b>" not in page and "My &lt;i&gt;own&lt;/i&gt;" in page
    assert "Test accuracy, one seed, no interval: by learning_rate from 50.0% to 50.0%." in page
    cells = re.findall("<td>(scratch|frozen)</td><td>50.00</td>", page)
    assert cells == ["scratch", "frozen"] * 3
    linked = dict(re.findall('<a href="(runs/[^"]+)">(.+?)</a>', page))
    assert sorted(linked.values()) == [f"learning_rate={rate}" for rate in (0.1, 0.2, 0.3, 7.0)]
    for path, name in linked.items():  # a page that can be read, with a link to the notebook
        run_page = Path("out", unquote(path)).read_text()
        assert f"<strong>{name}</strong>" in run_page and ".ipynb" in run_page
        assert "adam [10, 'all'] came along" in run_page
    for path in Path("out/runs").glob("*.ipynb"):  # the one that failed has its outputs up to there
        assert "adam [10, 'all'] came along" in path.read_text()

    first = {path: path.read_bytes() for path in Path("out/runs").iterdir() if "rate=7" not in path.name}
    more = run(own, "--grid", f"learning_rate={rates}", "--grid", "seed=0,1", *shared, "--dry-run")
    assert [line.split()[-1] for line in more.output.splitlines()[3:]] == ["done", "1"] * 3 + ["failed", "1"]
    mean = rows.drop_duplicates("run")["run_seconds"].astype(float).mean()  # the records have more digits
    estimate = re.search(r"Estimate: ([\d.]+) minutes, ([\d.]+) s a run", more.output)
    assert estimate is not None, more.output
    assert float(estimate[1]) == pytest.approx(5 * mean / 60, abs=0.06)
    assert float(estimate[2]) == pytest.approx(mean, abs=0.11)
    again = run(own, "--grid", f"learning_rate={rates}", *shared)
    assert again.exit_code == 1
    assert "my notebook: 4 runs, 3 of them done" in again.output
    assert len(list(Path("log").iterdir())) == 5
    assert all(path.read_bytes() == content for path, content in first.items())
    assert len(results("out")) == 3 * 2


def test_a_dry_run_prints_the_table_and_leaves_nothing(own):
    before = sorted(own.parent.rglob("*"))
    done = run(own, "--grid", "seed=0,1", "--grid", "optimizer=adam,sgd", "--dry-run", "--out", "out")
    assert done.exit_code == 0, done.output
    table = [line.split() for line in done.output.splitlines()]
    assert table[4:] == [["1", "0", "sgd"], ["2", "1", "adam"], ["3", "1", "sgd"]]
    assert sorted(own.parent.rglob("*")) == before


# Arguments, with a notebook of one's own and a folder if they name none | what the one line says
BAD_INPUT = """
--grid epoch=1 | epoch: no parameter of my notebook has this name; known are data, labels_per_class,
--grid seed=0,one | seed: 'one' is not a whole number like the default, 0
--grid seed=0,1 -p learning_rate x | learning_rate: 'x' is not a number like the default, 1.0
--grid labels_per_class=10 | labels_per_class: 10 is not a list like the default
--grid labels_per_class=[10 | labels_per_class: '[[10]' cannot be read as YAML
--grid seed | --grid: 'seed' is not of the form NAME=V1,V2,...
--grid seed= | seed: --grid gives it no value
--grid seed=1,2,1 | seed: --grid gives 1 twice
--grid seed=1 --grid seed=2 | seed: --grid is given twice for it
--grid seed=1 -p seed 2 | seed: given twice, by --grid and by -p
--workers 1 | --grid: there is nothing to sweep over
--grid run_dir=a,b | run_dir: is not for a sweep
--grid seed=MANY | --grid: makes 10,001 runs, more than 10,000; add --yes
--grid learning_rate=1,1.0 | learning_rate: --grid gives 1.0 twice
--grid seed=1 --workers 1 --scheduler tcp://127.0.0.1:1 | --workers: is for this machine
--grid seed=1 --scheduler tcp://127.0.0.1:1 | --scheduler: 'tcp://127.0.0.1:1' cannot be reached
--grid seed=1 --scheduler nonsense://a | --scheduler: 'nonsense://a' cannot be reached
--grid seed=1 --scheduler tls://127.0.0.1:1 | tls:// needs certificates in Dask's configuration
--grid seed=1 --out other | --out:
--grid seed=1 --out text.txt | exists and is not the folder of a sweep
--grid seed=1 --out text.txt/below | --out: 'text.txt/below' is below a file, 'text.txt'
09 --grid seed=0 | or the number alone, such as 05, or the path of a notebook, which ends in .ipynb
missing.ipynb --grid seed=0 | notebook: there is no file 'missing.ipynb'
~nobody1/x.ipynb --grid seed=0 | notebook: there is no file '~nobody1/x.ipynb'
text.ipynb --grid seed=0 | notebook: 'text.ipynb' is not a notebook
05 --dataset digits --grid frozen_convs=0,3 | frozen_convs: 3 is not allowed
05 --dataset digits --grid recipe=fast,slow | recipe: 'slow' is not known
05 --dataset digits --grid seeds=[0],[0,0] | seeds: [0, 0] holds an entry twice
05 --grid dataset=digits,missing.npz | dataset: there is no file
"""


@covers(
    "a home that is named",
    "a sweep of an unknown parameter",
    "a sweep with a value of another type",
    "an empty grid",
    "an enormous grid",
    "a scheduler that cannot be reached",
)
@pytest.mark.parametrize("line", BAD_INPUT.strip().splitlines())
def test_bad_input_gets_one_clear_line_and_leaves_nothing(own, monkeypatch, line):
    monkeypatch.setattr("helpers.runner.cluster.CONNECT_SECONDS", 1)
    Path("other").mkdir()
    for kept in ("other/kept.txt", "text.txt", "text.ipynb"):
        Path(kept).write_text("{}")
    command, message = line.split(" | ")
    arguments = command.replace("MANY", ",".join(map(str, range(10_001)))).split()
    notebook = [own] if command.startswith("-") else []
    folder = [] if "--out" in command else ["--out", "out"]
    before, threads = sorted(own.parent.rglob("*")), set(threading.enumerate())
    refused = run(*notebook, *arguments, *folder)
    assert refused.exit_code == 2
    assert message in refused.output
    said = [line for line in refused.output.splitlines() if not line.startswith(("my notebook: ", "Estimate: "))]
    assert said == [refused.output.splitlines()[-1]]
    assert sorted(own.parent.rglob("*")) == before
    assert set(threading.enumerate()) <= threads  # a client that is left would block the start of another one


@pytest.mark.parametrize(("option", "value"), [("--workers", "0"), ("--retries", "-1"), ("--timeout", "0")])
def test_a_number_out_of_range_is_refused_with_the_range(own, option, value):
    refused = run(own, "--grid", "seed=1", option, value, "--out", "out")
    assert refused.exit_code == 2
    assert f"Error: Invalid value for '{option}': {value} is not in the range" in refused.output


@covers("a folder of another sweep")
@pytest.mark.sweep
def test_a_folder_of_another_notebook_is_refused_and_stays(own, tmp_path):
    done = run(own, "--grid", "seed=0", "--workers", 1, "--out", "out")
    assert done.exit_code == 0, done.output
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    other = write_notebook(tmp_path / "other.ipynb", CODE + "\n1")
    refused = run(other, "--grid", "seed=0", "--out", "out")
    assert (refused.exit_code, len(refused.output.splitlines())) == (2, 1), refused.output
    assert "holds runs of another notebook, my notebook" in refused.output
    write_notebook(own, CODE + "\n2")
    assert "holds runs of an earlier state of it" in run(own, "--grid", "seed=0", "--out", "out").output
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == before


@covers("rows that are no results")
@pytest.mark.sweep
def test_the_parameters_of_a_run_may_be_expressions_and_its_rows_anything(own):
    columns = {"run": [1], "run_seconds": [2], "seed": [3], "test_accuracy": ["n/a"]}
    code = "import pandas as pd\nfrom pathlib import Path\nPath('results-none.csv').touch()\n"
    code += f"if seed: pd.DataFrame({columns}).to_csv('results-own.csv', index=False)"
    parameters = "rate = 10**-3\nseed = 0"
    write_notebook(own, code, parameters)
    anything = ["--grid", "rate=0.5,text"]  # of whose type nothing is known
    done = run(own, *anything, "--grid", "seed=0,1", "--workers", 2, "--out", "out")
    assert done.exit_code == 0, done.output
    rows = results("out")
    assert list(rows.columns) == [
        *("run", "rate", "parameter_seed", "run_seconds", "own_run", "own_run_seconds", "seed", "test_accuracy")
    ]
    assert sorted(rows["rate"] + rows["parameter_seed"] + rows["own_run"] + rows["seed"]) == [
        *("0.50", "0.5113", "text0", "text113")
    ]
    assert Path("out/sweep.html").is_file()


@covers("a damaged record")
def test_a_record_of_other_code_or_without_what_it_must_have_counts_as_missing(own):
    grid = {"seed": [0, 1, 2, 3]}
    planned = sweep.plan(notebooks.find(str(own)), grid, {}, Path("out").absolute(), many=False)
    names, outcome = list(planned.runs), {"notebook": "{}", "results": [], "seconds": 1.0}
    for name in names:
        sweep._write(planned, name, dict(outcome))
    assert sweep.missing(planned, sweep.records(planned)) == []
    for name, changes in zip(names[1:], ({"version": "1.0.0+other"}, {"results": None}, {"status": []}), strict=True):
        path = Path("out/runs", f"{name}.json")
        record = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))
    assert sweep.missing(planned, sweep.records(planned)) == names[1:]
    assert [record["name"] for record in sweep.records(planned)] == names[:1]


@covers("kernels that start at once")
@pytest.mark.parametrize(("temporary", "transport"), [("", "ipc"), ("long" * 30, "tcp")])
def test_kernels_that_start_at_once_can_take_no_port_from_each_other(own, tmp_path, monkeypatch, temporary, transport):
    if temporary:  # a path too long for a socket: ports are the second best
        Path(temporary).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / temporary))
    write_notebook(own, "import ipykernel\nopen('told', 'w').write(ipykernel.get_connection_info())")
    notebooks.execute(notebooks.find(str(own)), tmp_path / "ran.ipynb", {})
    told = json.loads(Path("told").read_text())
    assert told["transport"] == transport
    assert not Path(told["ip"]).parent.exists() or transport == "tcp"
    assert not list(tmp_path.glob("long*/*"))


def test_a_sweep_goes_on_by_its_folder_alone_from_anywhere(own, tmp_path, monkeypatch):
    Path("data.txt").write_text("came along")
    given = parameters.read_given([("data", "data.txt"), ("weights", ".inf")])
    grid = parameters.read_grid(["seed=0,1", "learning_rate=1,0.5"])
    planned = sweep.plan(notebooks.find(str(own)), grid, given, Path("out").absolute(), many=False)
    store.write_text(Path("out/sweep.json"), sweep.as_json(planned))
    sweep._write(planned, next(iter(planned.runs)), {"notebook": "{}", "results": [], "seconds": 1.0})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert sweep.resume(tmp_path / "out") == planned
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = run("--resume", "../out", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "my notebook: 4 runs, 1 of them done" in done.output


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("{}", [], "--resume: '{out}' holds no sweep.json of a sweep that could go on"),
        ('{"asked": {"notebook": "05", "grid": {}, "given": {}, "folder": "gone"}}', [], "'gone', is gone"),
        ("{}", ["--grid", "seed=1"], "--resume: takes everything from the run that it goes on with; give no other"),
        ("{}", ["--dataset", "digits"], "--resume: takes everything from the run that it goes on with; give no other"),
    ],
)
def test_a_sweep_that_cannot_go_on_is_refused(own, content, arguments, message):
    store.write_text(Path("out/sweep.json"), content)
    refused = run("--resume", "out", *arguments)
    assert (refused.exit_code, refused.output.count("\n")) == (2, 1)
    assert message.replace("{out}", str(Path("out").absolute())) in refused.output
    for arguments in ([], [own], ["--out", "out"]):
        says = "Error: sweep: needs a LESSON and --out DIR, or --resume DIR alone; see sweep --help\n"
        assert (run(*arguments).exit_code, run(*arguments).output) == (2, says)


def test_data_is_given_as_to_a_run(own):
    command = ["05", "--grid", "seeds=[0]", "--dry-run", "--out", "out"]
    done = run(*command, "--dataset", "digits")
    assert done.exit_code == 0 and "digits" in done.output
    twice = run(*command, "--dataset", "digits", "-p", "dataset", "mnist_5k")
    assert (twice.exit_code, twice.output) == (2, "Error: dataset: given twice, as 'digits' and 'mnist_5k'\n")
    beside = run("05", "--grid", "dataset=digits,mnist_5k", "--dataset", "digits", "--out", "out")
    assert (beside.exit_code, beside.output) == (2, "Error: dataset: given twice, by --grid and by --dataset or -p\n")


@pytest.mark.parametrize(
    ("wheel", "wanted"), [(True, '"transfer-learning-tutorial[sweep]"'), (False, f'-e "{REPOSITORY}[sweep]"')]
)
def test_without_dask_it_says_what_to_install(own, monkeypatch, wheel, wanted):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setattr(cluster, "INSTALLED", wheel)
    refused = run(own, "--grid", "seed=0", "--out", "out")
    says = f"Error: sweep: needs Dask, which is not installed; python -m pip install {wanted} adds it\n"
    assert (refused.exit_code, refused.output) == (2, says)


@pytest.mark.sweep
@pytest.mark.parametrize("processes", [2, 4])  # while workers start, and while their kernels do
def test_ctrl_c_in_a_terminal_which_all_processes_get_shows_no_traceback(own, start, processes):
    sweeping = start(own, "--grid", "seed=0,1,2", "-p", "seconds", "1", "--workers", 2, "--out", "out")
    wait_until(lambda: len(psutil.Process(sweeping.pid).children(recursive=True)) >= processes, 60)
    os.killpg(sweeping.pid, signal.SIGINT)
    _, errors = sweeping.communicate(timeout=60)
    assert sweeping.returncode == 128 + signal.SIGINT
    assert "Interrupted." in errors and "Traceback" not in errors


@covers("a folder in which a sweep is at work")
@pytest.mark.sweep
def test_two_sweeps_at_once_into_one_folder_are_refused(own, start):
    command = [own, "--grid", "seed=0,1", "-p", "seconds", "3", "--workers", 1, "--out", "out"]
    first = start(*command)
    wait_until(lambda: len(statuses("out")) == 1, 60)
    second = run(*command)
    assert second.exit_code == 2
    assert second.output.splitlines()[-1].startswith("Error: --out: another process is at work in ")
    assert first.wait(timeout=60) == 0


@pytest.mark.sweep
def test_nobody_else_on_this_machine_can_use_the_workers_of_a_sweep(own):
    from distributed import Client
    from distributed.security import Security

    with cluster.connect(None, 1) as (client, _):
        address = client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        for security in (None, Security.temporary()):
            with pytest.raises(OSError):
                Client(address.replace("tls", "tls" if security else "tcp"), security=security, timeout=1)


@covers("a run that takes too much time or memory")
@pytest.mark.sweep
def test_a_run_that_takes_too_much_time_or_memory_fails_alone(own, monkeypatch):
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", 500_000_000)
    code = "import time\nif optimizer == 'eats': data = b'x' * 700_000_000\nif optimizer != 'adam': time.sleep(60)"
    arguments = ["--grid", "optimizer=eats,sleeps,adam", "--timeout", 10, "--out", "out"]
    done = run(write_notebook(own, code), *arguments, "--workers", 1)
    assert done.exit_code == 1
    assert statuses("out") == {"defaults": "done", "optimizer=eats": "failed", "optimizer=sleeps": "failed"}
    errors = [json.loads(path.read_text())["error"] for path in sorted(Path("out/runs").glob("optimizer=*.json"))]
    assert [error.partition(":")[0] for error in errors] == ["DeadKernelError", "CellTimeoutError"]


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The worker processes of a sweep: children that have a kernel as their child."""
    return [child for child in psutil.Process(process.pid).children() if child.children()]


@covers("a worker that dies")
@pytest.mark.sweep
def test_a_worker_that_is_killed_costs_no_run(own, start):
    sweeping = start(own, "--grid", "seed=0,1,2,3", "-p", "seconds", "1", "--workers", 2, "--out", "out")
    wait_until(lambda: len(statuses("out")) >= 1, 60)
    wait_until(lambda: len(workers_of(sweeping)) == 2, 60)
    (victim, _) = workers_of(sweeping)
    (kernel, *_) = victim.children()
    victim.kill()
    output, errors = sweeping.communicate(timeout=90)
    assert sweeping.returncode == 0, output + errors
    assert len(results("out")) == 4 * 2
    assert list(statuses("out").values()) == ["done"] * 4
    assert not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE


@covers("a sweep that is stopped")
@pytest.mark.sweep
def test_a_sweep_that_is_stopped_keeps_what_is_finished_and_leaves_no_process(own, start):
    seeds = ",".join(map(str, range(10)))
    command = [own, "--grid", f"seed={seeds}", "-p", "seconds", "1", "--workers", 2, "--out", "out"]
    kept: dict[Path, bytes] = {}
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGHUP):
        finished = len(statuses("out"))
        sweeping = start(*command)
        wait_until(lambda finished=finished: len(statuses("out")) > finished, 60)
        wait_until(lambda sweeping=sweeping: workers_of(sweeping), 60)
        family = psutil.Process(sweeping.pid).children(recursive=True)
        sweeping.send_signal(number)
        _, errors = sweeping.communicate(timeout=60)
        if number != signal.SIGKILL:
            assert sweeping.returncode == 128 + number
            goes_on = f"To go on: transfer-tutorial sweep --resume {Path('out').absolute()} --workers 2\n"
            assert errors.endswith(goes_on) and "Traceback" not in errors
        psutil.wait_procs(family, timeout=15)
        assert not [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
        assert all(path.read_bytes() == content for path, content in kept.items())
        kept = {path: path.read_bytes() for path in Path("out/runs").glob("[!.]*")}
    finished = len(statuses("out"))
    assert 3 <= finished < 10
    done = run(*command)
    assert done.exit_code == 0, done.output
    assert f"my notebook: 10 runs, {finished} of them done" in done.output
    assert "Estimate: " in done.output
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert len(results("out")) == 10 * 2


@pytest.mark.sweep
def test_a_cluster_started_by_hand_needs_only_the_package(own, tmp_path):
    np.savez(tmp_path / "data.npz", x=np.arange(4))
    code = "import os, numpy as np\nfrom helpers.folders import run_folder, save_results\nimport pandas as pd\n"
    code += "rows = pd.DataFrame([{'seed': seed, 'total': np.load(data)['x'].sum(), 'process': os.getppid()}])\n"
    code += "save_results(run_folder(), 'own', rows)"
    with dask_cluster(tmp_path / "elsewhere", workers=2) as (address, (_, *workers)):
        arguments = ["--grid", "seed=0,1,2,3", "-p", "data", "data.npz", "--scheduler", address, "--out", "out"]
        done = run(write_notebook(tmp_path / "other.ipynb", code), *arguments)
    assert done.exit_code == 0, done.output
    assert "4 to run, 2 at a time" in done.output
    rows = results("out")
    assert set(rows["total"]) == {"6"}
    assert set(rows["process"]) == {str(worker.pid) for worker in workers}
    assert set(rows["data"]) == {"data.npz"}
    assert {path.name for path in (tmp_path / "elsewhere").iterdir()} <= {"scheduler.json", "dask-scratch-space"}


def write_images(folder: Path) -> Path:
    """Write four images of each of four classes, each of another grey."""
    for place in range(16):
        (folder / "abcd"[place % 4]).mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 * place).save(folder / "abcd"[place % 4] / f"{place}.png")
    return folder


@pytest.mark.sweep
def test_a_folder_is_read_where_it_is_and_its_content_counts(own, tmp_path):
    images = write_images(tmp_path / "images")
    code = "from helpers.folders import save_results, run_folder\nfrom helpers.datasets import load_dataset\n"
    code += "import pandas as pd\nimages = load_dataset(dataset, 8).train\n"
    code += "save_results(run_folder(), 'own', pd.DataFrame([{'brightness': images.images.mean()}]))"
    parameters = "dataset: str = 'digits'  # data\nseed: int = 0  # draws"
    notebook = write_notebook(tmp_path / "other.ipynb", code, parameters)
    command = [notebook, "--grid", "seed=0,1", "-p", "dataset", "images/", "--workers", "1", "--out", "out"]
    done = run(*command)
    assert done.exit_code == 0, done.output
    rows = results("out")
    assert [float(brightness) for brightness in rows["brightness"]] == [load_dataset(images, 8).train.images.mean()] * 2
    assert "2 of them done" in run(*command).output
    Image.new("L", (8, 8)).save(images / "a" / "another.png")
    refused = run(*command)
    assert refused.exit_code == 2
    assert "holds runs with another content of" in refused.output


def test_a_folder_cannot_travel_to_a_cluster(own, tmp_path):
    write_images(tmp_path / "images")
    notebook = write_notebook(tmp_path / "other.ipynb", "pass", "dataset: str = 'digits'  # data\nseed: int = 0  # s")
    refused = run(
        notebook, "--grid", "dataset=images,digits", "--scheduler", "tcp://127.0.0.1:1", "--out", tmp_path / "out"
    )
    assert (refused.exit_code, refused.output.count("\n")) == (2, 1)
    assert "dataset: 'images' is a folder, which the machines of a cluster do not have" in refused.output
    assert not (tmp_path / "out").exists()


@covers("workers without the package", "workers with another version of the package")
@pytest.mark.sweep
def test_workers_without_this_version_are_refused(own, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(REPOSITORY / "helpers", other / "helpers")
    with (other / "helpers" / "datasets.py").open("a") as source:
        source.write("# edited\n")
    (tmp_path / "nothing" / "helpers").mkdir(parents=True)
    (tmp_path / "nothing" / "helpers" / "__init__.py").write_text("")
    for folder, message in ((other, "has version 1.0.0+"), (tmp_path / "nothing", "has none with sweeps")):
        with dask_cluster(tmp_path / "elsewhere", PYTHONPATH=str(folder)) as (address, _):
            refused = run(own, "--grid", "seed=0,1", "--scheduler", address, "--out", "out")
        (tmp_path / "elsewhere" / "scheduler.json").unlink()
        assert refused.exit_code == 2
        assert message in refused.output and "install the same" in refused.output
        assert len(refused.output.splitlines()) == 3
        assert not Path("out").exists()


@covers("a scheduler that disappears")
@pytest.mark.sweep
def test_a_scheduler_that_vanishes_is_one_clear_error_and_finished_runs_stay(own, start, tmp_path):
    command = [own, "--grid", "seed=0,1,2", "-p", "seconds", "1", "--out", "out"]
    with dask_cluster(tmp_path / "elsewhere") as (address, (scheduler, *_)):
        sweeping = start(*command, "--scheduler", address)
        wait_until(lambda: len(statuses("out")) == 1, 60)
        scheduler.kill()
        _, errors = sweeping.communicate(timeout=60)
    assert sweeping.returncode == 1
    assert "Error: --scheduler: it is gone" in errors
    assert "Traceback" not in errors
    assert list(statuses("out").values()) == ["done"]
    assert len(results("out")) == 2
    assert "my notebook: 3 runs, 1 of them done" in run(*command, "--dry-run").output


@pytest.mark.sweep
@pytest.mark.notebook
def test_lesson_05_sweeps_over_seeds_on_the_digits(swept_lesson):
    rows = results(swept_lesson)
    assert len(rows) == 2 * (1 + 5)
    assert set(rows["parameter_labels_per_class"]) == {'["all"]'}
    assert "data:image/png" in (swept_lesson / "sweep.html").read_text()


# What users write and keep


@covers("a notebook that was executed before")
@pytest.mark.notebook
def test_a_notebook_that_was_executed_before_keeps_the_values_that_it_was_given(own):
    found = nbformat.read(own, as_version=4)
    injected = new_code_cell("# Parameters\noptimizer = 'sgd'\n", metadata={"tags": ["injected-parameters"]})
    found.cells.insert(2, injected)
    nbformat.write(found, own)
    assert notebooks.defaults(own)["optimizer"] == "sgd"
    notebooks.execute(notebooks.find(str(own)), Path("out.ipynb"), {"seed": 1})
    assert "sgd [10, 'all']" in Path("out.ipynb").read_text()


@covers("files beside a notebook")
@pytest.mark.sweep
def test_files_beside_a_notebook_that_its_code_names_come_along(own):
    Path("sub/more").mkdir(parents=True)
    Path("sub/d.csv").write_text("3")
    Path("sub/more/é.csv").write_text("4")
    code = "from pathlib import Path\ntotal = int(Path('d.csv').read_text()) + int(Path('more/é.csv').read_text())\n"
    code += "Path('results-own.csv').write_text(f'total\\n{total}\\n')"
    notebook = write_notebook(Path("sub/other.ipynb"), code, "seed: int = 0  # draws")
    done = run(notebook, "--grid", "seed=0", "--workers", "1", "--out", "out")
    assert done.exit_code == 0, done.output
    assert set(results("out")["total"]) == {"7"}
    Path("sub/results-own.csv").write_text("total\n0\n")  # of a run by hand
    assert "1 of them done" in run(notebook, "--grid", "seed=0", "--workers", "1", "--out", "out").output
    Path("sub/d.csv").write_text("4")
    changed = run(notebook, "--grid", "seed=0", "--workers", "1", "--out", "out")
    assert changed.exit_code == 2
    assert "holds runs of an earlier state of it" in changed.output
