"""Sweeps, with real Dask processes and real kernels on a tiny custom notebook."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree
from urllib.parse import unquote

import nbformat
import pandas as pd
import psutil
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tiny_course import LISTEN, transfer_tutorial, wait_until, write_notebook

from helpers.folders import PACKAGE, REPOSITORY
from helpers.runner import cluster, notebooks, parameters, report, sweep
from helpers.runner.cli import main
from helpers.runner.process import lock
from helpers.store import write_text

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
RESULTS = "task,strategy,seed,test_accuracy\ntarget,scratch,0,0.5\ntarget,frozen,0,0.5\n"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a custom notebook into an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # workers import the package from here, as if it were installed
    return write_notebook(tmp_path / "my notebook.ipynb", PARAMETERS, CODE, title="My <i>own</i>")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["sweep", *map(str, arguments)], catch_exceptions=False)  # so bugs fail the test


def plan(notebook: object, *swept: str, **given: object) -> sweep.Sweep:
    return sweep.plan(str(notebook), swept, None, [(name, str(value)) for name, value in given.items()], Path("out"))


def pretend_to_run(planned: sweep.Sweep, *names: str, **outcome: object) -> None:
    """Write records into a sweep's folder, as if its runs had finished."""
    write_text(planned.out / "sweep.json", json.dumps(planned.record))
    for name in names:
        sweep._write(planned, name, {"notebook": "{}", "results": [RESULTS], "seconds": 1.0, **outcome})


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """Start a sweep in a separate process, which ends with the test."""
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
    """Return the status of each run, by the part of its name that lists its parameters."""
    records = [json.loads(path.read_text()) for path in sorted(Path(folder, "runs").glob("*.json"))]
    return {record["name"].rpartition("-")[0]: record["status"] for record in records}


def results(folder: str | Path) -> pd.DataFrame:
    return pd.read_csv(Path(folder, "results.csv"), dtype=str, keep_default_na=False)


@contextmanager
def dask_cluster(folder: Path, workers: int = 1, **environment: str) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """Start a scheduler and workers as users do; yield the address and the processes, scheduler first."""
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
        wait_until(lambda: told.is_file() and told.read_text().endswith("}"), 60)  # Dask writes the file piecemeal
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


# Plans


def test_a_grid_is_laid_out_in_order(own):
    planned = plan(own, "seed=0,1", "labels_per_class=[10],[all]", optimizer="sgd")
    assert [name.rpartition("-")[0] for name in planned.runs] == [
        *("seed=0,labels_per_class=_10_", "seed=0,labels_per_class=_all_"),
        *("seed=1,labels_per_class=_10_", "seed=1,labels_per_class=_all_"),
    ], "what is swept, also if it is the default, and nothing else"
    assert list(planned.runs.values())[1] == {"optimizer": "sgd", "seed": 0, "labels_per_class": ["all"]}
    assert not Path("out").exists()


def test_values_may_be_paired(own):
    planned = plan(own, "learning_rate,labels_per_class=[1,[10]],[0.5,[all]]", "seed=0,1")
    assert planned.axes == (("learning_rate", "labels_per_class"), ("seed",))
    runs = [tuple(values[name] for name in planned.varied) for values in planned.runs.values()]
    assert runs == [(1.0, [10], 0), (1.0, [10], 1), (0.5, ["all"], 0), (0.5, ["all"], 1)]


def test_a_run_is_named_by_parameters_data_and_code_and_not_by_outputs(own):
    def names(**given: object) -> list[str]:
        return list(plan(own, "seed=0,1", **given).runs)

    first = names()
    assert len(set(first)) == 2
    assert set(names(optimizer="sgd")).isdisjoint(first)
    assert len(next(iter(plan(own, f"optimizer={'学' * 200}").runs)).encode()) < 200, "a file can have this name"
    assert names(learning_rate=1) == first, "a whole number is a number"
    assert names(learning_rate=1.0) == first, "a default need not be given"
    notebook = nbformat.read(own, as_version=4)
    notebook.cells[0].source = "# Another heading"
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="printed")]
    nbformat.write(notebook, own)
    assert names() == first
    Path("a.txt").write_text("one")
    with_data = names(data="a.txt")
    Path("a.txt").write_text("two")
    assert set(names(data="a.txt")).isdisjoint(with_data)
    write_notebook(own, PARAMETERS, CODE + "\nprint('more')")
    assert set(names()).isdisjoint(first)


def test_a_file_sets_parameters_as_on_the_command_line_which_comes_first(own):
    write_text(
        Path("given.yaml"), "labels_per_class:\n  - 10\n  - all\noptimizer: 010  # a text\nlearning_rate: 1e-3\n"
    )
    assert "learning_rate: is given twice" in run(own, "-f", "given.yaml", "--grid", "learning_rate=1").output
    assert parameters.joined(Path("given.yaml"), [("learning_rate", "1")])[-1] == ("learning_rate", "1")
    (run_parameters,) = plan(own, "seed=0", **dict(parameters.joined(Path("given.yaml"), []))).runs.values()
    assert run_parameters == {"labels_per_class": [10, "all"], "optimizer": "010", "learning_rate": 0.001, "seed": 0}
    write_text(Path("given.yaml"), "- 1")
    refused = run(own, "-f", "given.yaml", "--grid", "seed=0")
    assert (refused.exit_code, refused.output.count("\n")) == (2, 1)
    assert "-f: 'given.yaml' is not a YAML file with parameters such as seeds: [0, 1]" in refused.output


def test_a_dry_run_prints_the_table_and_leaves_nothing(own):
    before = sorted(own.parent.rglob("*"))
    done = run(own, "--grid", "seed=0,1", "--grid", "optimizer=adam,sgd", "--dry-run", "--out", "out")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-2:] == ["to run  seed=1, optimizer=adam", "to run  seed=1, optimizer=sgd"]
    assert run(own, "--grid", "seed=0,1", "--dry-run").exit_code == 0
    assert sorted(own.parent.rglob("*")) == before
    without_out = sweep.plan(str(own), ["seed=0"], None, [], None).out
    assert re.fullmatch(rf"{own.parent}/sweeps/my notebook-\d{{8}}-\d{{6}}", str(without_out))


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (
            "OWN --grid epoch=1",
            "epoch: no parameter of my notebook has this name; known parameters: data, labels_per_class,",
        ),
        ("OWN --grid seed=0,one", "seed: 'one' is not a whole number like the default, 0"),
        ("OWN --grid labels_per_class=[10", "labels_per_class: '[[10]' cannot be read as YAML"),
        ("OWN --grid seed", "--grid: 'seed' is not of the form NAME=V1,V2,..."),
        ("OWN --grid seed=", "seed: --grid gives it no values"),
        ("OWN --grid seed,optimizer=[0,sgd],[1]", "seed,optimizer: [1] is not a list of 2 values, one per name"),
        ("OWN --grid seed,optimizer=[0,sgd],[0,sgd]", "seed,optimizer: --grid gives 0 with sgd twice"),
        ("OWN --grid seed,optimizer=[0,sgd],[x,sgd]", "seed: 'x' is not a whole number like the default, 0"),
        ("OWN --grid seed,seed=[0,1]", "seed: --grid sets it twice"),
        ("OWN --grid learning_rate=1,1.0", "learning_rate: --grid gives 1.0 twice"),
        ("OWN --grid seed=1 -p seed 2", "seed: is given twice, by --grid and -p"),
        ("OWN --grid run_dir=a,b", "run_dir: does not apply to a sweep"),
        (f"OWN --grid seed={','.join(map(str, range(10_001)))}", "makes 10,001 runs, more than 10,000; add --yes"),
        ("OWN --grid seed=1 --workers 1 --scheduler tcp://127.0.0.1:1", "--workers: is for this machine only"),
        ("OWN --grid seed=1 --store s --scheduler tcp://127.0.0.1:1", "--store: is for this machine only"),
        ("OWN --grid seed=1 --store text.txt", "text.txt' is a file; choose a writable folder"),
        ("OWN --grid seed=1 --scheduler tcp://127.0.0.1:1", "--scheduler: 'tcp://127.0.0.1:1' cannot be reached"),
        ("OWN --grid seed=1 --scheduler tls://127.0.0.1:1", "tls:// also needs certificates in Dask's configuration"),
        ("OWN --grid seed=1 --out other", "has no sweep to resume; choose a different folder"),
        ("OWN --grid seed=1 --out text.txt/below", "--out: 'text.txt/below' is inside 'text.txt', which is a file"),
        ("09 --grid seed=0", "or the number alone, such as 05, or the path of a notebook, which ends in .ipynb"),
        ("text.ipynb --grid seed=0", "notebook: 'text.ipynb' is not a notebook"),
        ("05 --dataset digits --grid recipe=fast,slow", "recipe: 'slow' is not known"),
        ("05 --dataset digits --grid dataset=mnist_5k", "dataset: is given twice, by --grid and --dataset or -p"),
        (
            "OWN --grid photos=images,digits --scheduler tcp://127.0.0.1:1",
            "photos: 'images' is a folder that the machines of a",
        ),
        ("OWN", "--grid: there is nothing to sweep over"),
        ("OWN --grid seed=1 --workers 0", "Error: Invalid value for '--workers': 0 is not in the range"),
        ("--out other", "sweep: LESSON is missing; name one, or use --resume DIR alone"),
    ],
)
def test_bad_input_gets_one_sentence_and_leaves_nothing(own, monkeypatch, command: str, says: str):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    write_notebook(own, PARAMETERS + "photos: str = ''", CODE)
    Path("images").mkdir()
    for name in ("other/kept.txt", "text.txt", "text.ipynb"):
        write_text(Path(name), "{}")
    before, folder = sorted(own.parent.rglob("*")), [] if "--out" in command else ["--out", "out"]
    refused = run(*[own if word == "OWN" else word for word in command.split()], *folder)
    assert refused.exit_code == 2
    assert says in refused.output
    beforehand = ("my notebook: ", "Estimate: ", "Usage: ", "Try ")
    said = [line for line in refused.output.splitlines() if line and not line.startswith(beforehand)]
    assert said == [refused.output.splitlines()[-1]]
    assert sorted(own.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("wheel", "wanted"), [(True, '"transfer-learning-tutorial[sweep]"'), (False, f'-e "{REPOSITORY}[sweep]"')]
)
def test_without_dask_it_says_what_to_install(own, monkeypatch, wheel, wanted):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setattr(cluster, "INSTALLED", wheel)
    refused = run(own, "--grid", "seed=0", "--out", "out")
    says = f"Error: sweep: needs Dask, which is not installed; run python -m pip install {wanted}\n"
    assert (refused.exit_code, refused.output) == (2, says)


# The folder of a sweep


def test_a_sweep_is_resumed_from_anywhere_by_its_folder_alone(own, tmp_path, monkeypatch):
    Path("data.txt").write_text("came along")
    planned = plan(own.name, "seed=0,1", "learning_rate=1,0.5", data="data.txt", weights=".inf")
    pretend_to_run(planned, next(iter(planned.runs)))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert sweep.resume(Path("../out")).runs == planned.runs
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = run("--resume", "../out", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "my notebook: 4 runs, 1 of them done" in done.output


@pytest.mark.parametrize(
    ("content", "arguments", "says"),
    [
        ("{}", [], "has no sweep to resume"),
        (
            '{"notebook": "05", "folder": "gone", "content": {}, "files": {}, "axes": [], "runs": {}, "made_with": {}}',
            [],
            "'gone', which no longer exists",
        ),
        ("{}", ["--dataset", "digits"], "--resume: the parameters come from the run to resume; omit options that"),
    ],
)
def test_a_sweep_that_cannot_be_resumed_is_refused(own, content: str, arguments: list[str], says: str):
    write_text(Path("out/sweep.json"), content)
    refused = run("--resume", "out", *arguments)
    assert (refused.exit_code, refused.output.count("\n")) == (2, 1)
    assert says in refused.output


def test_grids_that_were_added_are_one_sweep_for_its_page_its_figure_and_resume(own, tmp_path, monkeypatch):
    first = plan(own, "learning_rate=0.1,0.2,7", optimizer="adam")
    *done, failing = first.runs
    pretend_to_run(first, *done)
    pretend_to_run(first, failing, error="ValueError: diverged")
    second = plan(own, "learning_rate=0.1,0.2", "optimizer=adam,sgd")
    assert [*second.runs][:3] == [*first.runs], "those of the first grid keep their names"
    *new, to_go = [*second.runs][3:]
    pretend_to_run(second, *new)
    last = plan(own, "optimizer=adam", learning_rate=0.2)
    assert last.runs == second.runs
    monkeypatch.chdir("/")
    resumed = sweep.resume(tmp_path / "out")
    known = sweep.records(resumed)
    assert resumed.runs == second.runs and sweep.missing(resumed, known) == [failing, to_go]
    first = "the first error (learning_rate=7.0, optimizer=adam): ValueError: diverged"
    assert sweep.failure(resumed) == f"1 of 5 runs failed; {first}"
    page = report.write_sweep(resumed, known, sweep.write_results(resumed, known)).read_text()
    assert (
        'A sweep over learning_rate, optimizer: 3 runs finished,\n<span class="failed">1 failed</span>, 1 to go' in page
    )
    assert re.findall(r">(learning_rate=[^<]+)<", page[page.index("<h2>Failed") : page.index("<details")]) == [
        *("learning_rate=7.0, optimizer=adam", "learning_rate=0.1, optimizer=adam"),
        *("learning_rate=0.2, optimizer=adam", "learning_rate=0.1, optimizer=sgd"),
    ]
    assert "by learning_rate, a line for each setting of optimizer," in page


def test_a_sweep_records_what_it_was_made_from_and_how_to_repeat_it(own, monkeypatch):
    for grid in ("seed=0,1", "seed=2"):
        planned = plan(own.name, grid, labels_per_class="[10, all]")
        pretend_to_run(planned, *planned.runs)
    record = json.loads(Path("out/sweep.json").read_text())
    assert record["made_with"].keys() == {"versions", "machine", "commit"} and record["started"].startswith("20")
    assert [shlex.split(line)[:-3] for line in record["commands"]] == [
        [*f"cd {own.parent} && transfer-tutorial sweep".split(), own.name, "--grid", grid, "--out", "repeated"]
        for grid in ("seed=0,1", "seed=2")
    ]
    record["made_with"]["versions"]["numpy"] = "1.0"
    monkeypatch.setattr("helpers.runner.batch._made_with", lambda: record["made_with"])
    upgraded = plan(own.name, "seed=3", labels_per_class="[10, all]")
    assert sweep.missing(upgraded, sweep.records(upgraded)) == list(upgraded.runs)
    assert "different code or versions count as missing and run again: 3" in sweep.outlook(upgraded, [])
    assert len(upgraded.record["made_with_before"]) == 1


def test_a_module_beside_the_notebook_that_was_not_sent_along_is_answered_with_how_to_send_it(own):
    planned = plan(own, "seed=0,1")
    Path("beside.py").touch()
    for name, module in zip(planned.runs, ("beside", "elsewhere"), strict=True):
        pretend_to_run(planned, name, error=f"ModuleNotFoundError: No module named '{module}'")
    said, other = [record["error"] for record in sweep.records(planned)]
    assert said.endswith("sys.path.append(os.path.dirname(os.path.abspath('beside.py')))")
    assert other == "ModuleNotFoundError: No module named 'elsewhere'"
    code = f"import os, sys\n{said.rpartition(': ')[2]}\nimport beside"
    assert [name for name, _ in notebooks.named_files(write_notebook(own, PARAMETERS, code))] == ["beside.py"]


def write_images(folder: Path) -> Path:
    """Write four images of each of four classes, each in a different gray."""
    for place in range(16):
        (folder / "abcd"[place % 4]).mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 * place).save(folder / "abcd"[place % 4] / f"{place}.png")
    return folder


def test_a_folder_with_runs_of_another_notebook_or_on_other_data_is_refused(own, tmp_path):
    images = write_images(tmp_path / "images")
    write_notebook(own, "dataset: str = 'digits'\nseed: int = 0", "open('beside.csv')")
    Path("beside.csv").write_text("1")
    command = ["--grid", "seed=0", "-p", "dataset", "images/", "--out", "out"]
    planned = plan(own, "seed=0", dataset="images/")
    assert [values["dataset"] for values in planned.runs.values()] == [str(images)], "a folder is read where it is"
    pretend_to_run(planned, *planned.runs)
    Path("results-own.csv").write_text("total\n0\n")  # from a run by hand
    assert "1 runs, 1 of them done" in run(own, *command, "--dry-run").output
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    other = write_notebook(tmp_path / "other.ipynb", "dataset: str = 'digits'\nseed: int = 0", "1")
    assert "has runs of a different notebook, my notebook" in run(other, *command).output
    Image.new("L", (8, 8)).save(images / "a" / "another.png")
    assert f"images changed after 1 runs in '{Path('out').absolute()}' had finished" in run(own, *command).output
    Path("beside.csv").write_text("2")
    refused = run(own, *command)
    assert (refused.exit_code, len(refused.output.splitlines())) == (2, 1), refused.output
    assert f"Error: --out: {images}, beside.csv changed after 1 runs in " in refused.output
    write_notebook(own, "dataset: str = 'digits'\nseed: int = 0", "open('beside.csv').read()")
    assert f"Error: --out: {images}, beside.csv, my notebook.ipynb changed after" in run(own, *command).output
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == before


def test_a_folder_in_which_a_sweep_is_at_work_is_refused(own, monkeypatch):
    @contextmanager
    def connect(*_: object) -> Iterator[tuple[None, dict]]:
        yield None, {}

    monkeypatch.setattr(cluster, "connect", connect)
    Path("out").mkdir()
    with lock("--out", Path("out")):
        refused = run(own, "--grid", "seed=0,1", "--out", "out")
    assert refused.exit_code == 2
    assert refused.output.splitlines()[-1].startswith("Error: --out: another process is working in ")


@pytest.mark.parametrize("change", [{"code": "other"}, {"results": None}, {"status": []}, {"code": None}])
def test_a_record_of_other_code_or_without_what_it_must_have_counts_as_missing(own, change: dict):
    planned = plan(own, "seed=0,1")
    kept, changed = planned.runs
    pretend_to_run(planned, kept, changed)
    assert sweep.missing(planned, sweep.records(planned)) == []
    path = Path("out/runs", f"{changed}.json")
    record = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))
    assert sweep.missing(planned, sweep.records(planned)) == [changed]
    assert [record["name"] for record in sweep.records(planned)] == [kept]


EDITS = {
    "computes nothing": [
        ("training", '"""Training, counted', '"""Counted'),
        ("plots/figures", "WIDTH = ", "WIDTH = 1 + "),
    ],
    "computes": [("training", "WARM_UP = 0.1", "WARM_UP = 0.2")],
}


@pytest.mark.parametrize(("edit", "kept"), [("computes nothing", 2), ("computes", 0)])
def test_an_edit_discards_runs_only_where_it_computes_their_results(own, tmp_path, python, edit: str, kept: int):
    planned = sweep.plan("05", ["seeds=[0],[1]"], "digits", [], Path("out"))
    pretend_to_run(planned, *planned.runs)
    copytree(PACKAGE, tmp_path / "edited" / "helpers")
    copytree(REPOSITORY / "notebooks", tmp_path / "edited" / "notebooks")
    for module, old, new in EDITS[edit]:
        source = tmp_path / "edited" / "helpers" / f"{module}.py"
        assert source.read_text().count(old) == 1
        source.write_text(source.read_text().replace(old, new))
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from helpers.runner.cli import main; main()"
    done = python(code, tmp_path / "edited", "sweep", "--resume", Path("out").absolute(), "--dry-run")
    assert f"05_transfer_comparison: 2 runs, {kept} of them done" in done.stdout, done.stderr


def test_the_parameters_of_a_run_may_be_expressions_and_its_rows_anything(own):
    write_notebook(own, "rate = 10**-3\nseed = 0")
    planned = plan(own, "rate=0.5,text", "seed=0,1")
    for name, values in planned.runs.items():
        rows = ["", "run,run_seconds,seed,test_accuracy\n1,2,3,n/a\n"] if values["seed"] else [""]
        pretend_to_run(planned, name, results=rows)
    records = sweep.records(planned)
    rows = sweep.write_results(planned, records)
    assert list(rows.columns) == [
        *("run", "rate", "parameter_seed", "run_seconds", "own_run", "own_run_seconds", "seed", "test_accuracy")
    ]
    assert sorted(rows["rate"] + rows["parameter_seed"] + rows["own_run"] + rows["seed"]) == [
        *("0.50", "0.5113", "text0", "text113")
    ]
    assert report.write_sweep(planned, records, rows).is_file()


# Local sweeps


def test_a_sweep_runs_what_is_missing_and_one_that_fails_is_reported_among_the_others(own):
    Path("data.txt").write_text("came along")
    Path("log").mkdir()
    log = str(Path("log").absolute())
    planned = plan(own, "learning_rate=0.1,0.2,7", data="data.txt", log=log)
    pretend_to_run(planned, next(iter(planned.runs)))
    finished = {path: path.read_bytes() for path in Path("out/runs").iterdir()}
    arguments = ["-p", "data", "data.txt", "-p", "log", log, "--workers", 2, "--out", "out"]
    done = run(own, "--grid", "learning_rate=0.1,0.2,7", *arguments)
    assert done.exit_code == 1
    assert "my notebook: 3 runs, 1 of them done" in done.output
    assert "Estimate: 0.0 minutes of computing at 1.0 s per run, shared by all parallel runs" in done.output
    assert "2 to run, 2 in parallel; Dask's dashboard: http://127.0.0.1:" in done.output
    assert "2 of 2 " in done.output and "%|" not in done.output, "a log file gets lines, and no bar"
    (message,) = [line for line in done.output.splitlines() if line.startswith("Error")]
    assert message == "Error: 1 of 3 runs failed; the first error (learning_rate=7.0): ValueError: <b>7.0</b> diverged"
    resume = f"To resume: transfer-tutorial sweep --resume {Path('out').absolute()} --workers 2"
    assert done.output.splitlines()[-1] == resume
    assert all(path.read_bytes() == content for path, content in finished.items())
    assert sweep.missing(planned, sweep.records(planned)) == list(planned.runs)[-1:], "the one that failed"
    rows = results("out")
    assert len(rows) == 2 * 2
    assert list(rows.columns) == [
        *("run", "data", "log", "learning_rate", "run_seconds", "task", "strategy", "seed", "test_accuracy")
    ]
    folders = [path.read_text() for path in Path("log").iterdir()]
    assert len(folders) == len(set(folders)) == 2
    assert not any(Path(folder).exists() for folder in folders)
    page = Path("out/sweep.html").read_text()
    assert "ValueError: &lt;b&gt;7.0&lt;/b&gt; diverged" in page
    assert "<b>" not in page and "My &lt;i&gt;own&lt;/i&gt;" in page
    linked = dict(re.findall('<a href="(runs/[^"]+)">(.+?)</a>', page))
    assert sorted(linked.values()) == [f"learning_rate={rate}" for rate in (0.1, 0.2, 7.0)]
    for path, name in linked.items():
        run_page = Path("out", unquote(path)).read_text()
        assert f"<strong>{name}</strong>" in run_page and ".ipynb" in run_page
        assert "adam [10, 'all'] came along" in run_page or "0.1" in name


@pytest.mark.sweep
def test_runs_share_a_store_and_each_keeps_its_rows_and_extra_files(own):
    code = "from pathlib import Path\nimport pandas as pd\nfrom helpers.folders import run_folder, save_results\n"
    code += "folder = run_folder()\nfolder.mkdir(parents=True, exist_ok=True)\n(folder / f'trained-{seed}').touch()\n"
    code += "path = save_results(folder, 'own', pd.DataFrame({'seed': [seed]}))\n"
    code += "path.with_name('extra-wrong.bin').write_bytes(bytes([seed, 255]))"
    Path("extra-wrong.bin").write_bytes(b"of a run by hand")
    done = run(write_notebook(own, PARAMETERS, code), "--grid", "seed=3,4", "--store", "kept", "--out", "out")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in Path("kept/runs/lessons").iterdir()) == ["trained-3", "trained-4"]
    assert list(results("out")["seed"]) == ["3", "4"]
    extra = {path.parent.name.partition("-")[0]: path.read_bytes() for path in Path("out/runs").glob("*/extra-*")}
    assert extra == {"seed=3": b"\x03\xff", "seed=4": b"\x04\xff"}


@pytest.mark.sweep
def test_ctrl_c_while_workers_start_shows_no_traceback(own, start):
    sweeping = start(own, "--grid", "seed=0,1,2", "-p", "seconds", "1", "--workers", 2, "--out", "out")
    wait_until(lambda: len(psutil.Process(sweeping.pid).children(recursive=True)) >= 2, 60)
    os.killpg(sweeping.pid, signal.SIGINT)  # as a terminal would
    _, errors = sweeping.communicate(timeout=60)
    assert sweeping.returncode == 128 + signal.SIGINT
    assert "Interrupted." in errors and "Traceback" not in errors


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


@pytest.mark.sweep
def test_a_run_that_takes_too_much_time_or_memory_fails_alone(own, monkeypatch):
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", 500_000_000)
    code = "import time\nif optimizer == 'eats': data = b'x' * 700_000_000\nif optimizer != 'adam': time.sleep(60)"
    arguments = ["--grid", "optimizer=eats,sleeps,adam", "--timeout", 10, "--out", "out"]
    done = run(write_notebook(own, PARAMETERS, code), *arguments, "--workers", 1)
    assert done.exit_code == 1
    assert statuses("out") == {"optimizer=adam": "done", "optimizer=eats": "failed", "optimizer=sleeps": "failed"}
    errors = [json.loads(path.read_text())["error"] for path in sorted(Path("out/runs").glob("optimizer=[es]*.json"))]
    assert [error.partition(":")[0] for error in errors] == ["DeadKernelError", "CellTimeoutError"]


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    """Return the worker processes of a sweep: children with a kernel as their child."""
    return [child for child in psutil.Process(process.pid).children() if child.children()]


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


@pytest.mark.sweep
def test_a_sweep_that_is_stopped_keeps_what_is_finished_and_leaves_no_process(own, start):
    seeds = ",".join(map(str, range(6)))
    command = [own, "--grid", f"seed={seeds}", "-p", "seconds", "1", "--workers", 2, "--out", "out"]
    kept: dict[Path, bytes] = {}
    for number in (signal.SIGKILL, signal.SIGINT):
        finished = len(statuses("out"))
        sweeping = start(*command)
        wait_until(lambda finished=finished: len(statuses("out")) > finished, 60)
        wait_until(lambda sweeping=sweeping: workers_of(sweeping), 60)
        family = psutil.Process(sweeping.pid).children(recursive=True)
        if number == signal.SIGKILL:
            sweeping.kill()
        else:
            os.killpg(sweeping.pid, number)  # as a terminal would
        _, errors = sweeping.communicate(timeout=60)
        psutil.wait_procs(family, timeout=15)
        assert not [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        assert all(path.read_bytes() == content for path, content in kept.items())
        done = [path.with_suffix("") for path in Path("out/runs").glob("*.json")]  # the others start over
        kept = {path: path.read_bytes() for stem in done for path in stem.parent.glob(f"{stem.name}.*")}
    assert sweeping.returncode == 128 + signal.SIGINT
    resume = f"To resume: transfer-tutorial sweep --resume {Path('out').absolute()} --workers 2\n"
    assert errors.endswith(resume) and "Traceback" not in errors
    finished = len(statuses("out"))
    assert 2 <= finished < 6
    assert len(results("out")) == finished * 2
    done = run(*command)
    assert done.exit_code == 0, done.output
    assert f"my notebook: 6 runs, {finished} of them done" in done.output
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert len(results("out")) == 6 * 2


@pytest.mark.sweep
@pytest.mark.notebook
def test_lesson_05_sweeps_over_seeds_on_the_digits(tmp_path):
    command = ["sweep", "05", "--grid", "seeds=[0],[1]", "--dataset", "digits", "-p", "labels_per_class", "[all]"]
    done = transfer_tutorial(tmp_path, *command, "--workers", "2", "--out", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = results(tmp_path / "out")
    assert len(rows) == 2 * (1 + 6)
    assert set(rows["parameter_labels_per_class"]) == {'["all"]'}
    assert "data:image/png" in (tmp_path / "out" / "sweep.html").read_text()


# Sweeps on a cluster


@pytest.mark.sweep
def test_a_cluster_started_by_hand_needs_only_the_package_and_gets_the_files_that_a_notebook_names(own, tmp_path):
    write_text(tmp_path / "data.txt", "6")
    write_text(tmp_path / "sub" / "more" / "é.csv", "4")
    code = "import os\nimport pandas as pd\nfrom helpers.folders import run_folder, save_results\n"
    code += "row = {'seed': seed, 'read': open(data).read(), 'beside': open('more/é.csv').read()}\n"
    code += "save_results(run_folder(), 'own', pd.DataFrame([{**row, 'process': os.getppid()}]))"
    with dask_cluster(tmp_path / "elsewhere", workers=2) as (address, (_, *workers)):
        arguments = ["--grid", "seed=0,1,2,3", "-p", "data", "data.txt", "--scheduler", address, "--out", "out"]
        done = run(write_notebook(tmp_path / "sub" / "other.ipynb", PARAMETERS, code), *arguments)
    assert done.exit_code == 0, done.output
    assert "4 to run, 2 in parallel" in done.output
    rows = results("out")
    assert (set(rows["data"]), set(rows["read"]), set(rows["beside"])) == ({"data.txt"}, {"6"}, {"4"})
    assert set(rows["process"]) == {str(worker.pid) for worker in workers}
    assert {path.name for path in (tmp_path / "elsewhere").iterdir()} <= {"scheduler.json", "dask-scratch-space"}


@pytest.mark.sweep
def test_workers_without_this_version_are_refused(own, tmp_path):
    other = tmp_path / "other"
    copytree(REPOSITORY / "helpers", other / "helpers")
    with (other / "helpers" / "datasets.py").open("a") as source:
        source.write("EDITED = True\n")
    (tmp_path / "nothing" / "helpers").mkdir(parents=True)
    (tmp_path / "nothing" / "helpers" / "__init__.py").write_text("")
    for folder, message in ((other, "has version 1.0.0+"), (tmp_path / "nothing", "has an unknown version")):
        with dask_cluster(tmp_path / "elsewhere", PYTHONPATH=str(folder)) as (address, _):
            refused = run(own, "--grid", "seed=0,1", "--scheduler", address, "--out", "out")
        (tmp_path / "elsewhere" / "scheduler.json").unlink()
        assert refused.exit_code == 2
        assert message in refused.output and "install the same" in refused.output
        assert len(refused.output.splitlines()) == 2
        assert not Path("out").exists()


@pytest.mark.sweep
def test_a_scheduler_that_vanishes_is_one_clear_error_and_finished_runs_stay(own, start, tmp_path):
    command = [own, "--grid", "seed=0,1,2", "-p", "seconds", "1", "--out", "out"]
    with dask_cluster(tmp_path / "elsewhere") as (address, (scheduler, *_)):
        sweeping = start(*command, "--scheduler", address)
        wait_until(lambda: len(statuses("out")) == 1, 60)
        scheduler.kill()
        _, errors = sweeping.communicate(timeout=60)
    assert sweeping.returncode == 1
    assert "Error: --scheduler: the scheduler stopped or dropped this sweep" in errors
    assert "Traceback" not in errors
    assert list(statuses("out").values()) == ["done"]
    assert len(results("out")) == 2
    assert "my notebook: 3 runs, 1 of them done" in run(*command, "--dry-run").output
