"""The command line: runs with real kernels, on three tiny lessons that don't train anything."""

import errno
import itertools
import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from tiny_course import (
    DATA,
    PNG,
    outputs,
    pretend_to_execute,
    record,
    run,
    save_npz,
    start,
    status,
    wait_until,
    write_notebook,
)

from helpers import store
from helpers.runner import notebooks
from helpers.runner.batch import _make_folder

IMPORTED = """
import sys
from click.testing import CliRunner
from helpers.runner.cli import main
assert "--resume" in CliRunner().invoke(main, ["run", "--help"]).output
print(sorted({"tensorflow", "pandas", "numpy", "papermill", "nbconvert"} & set(sys.modules)))
from helpers.runner import notebooks, parameters
print(parameters.check(notebooks.lessons()[:6], {"dataset": "digits"})["dataset"].name)
print(sorted({"tensorflow", "keras"} & set(sys.modules)))
"""


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Execute lessons without kernels, for tests of everything around them."""
    monkeypatch.setattr(notebooks, "execute", pretend_to_execute)


def test_help_imports_nothing_heavy_and_the_parameters_of_the_lessons_are_checked_without_tensorflow(python):
    done = python(IMPORTED, MNIST_NPZ="mnist.npz")
    assert done.stdout == "[]\ndigits\n[]\n", done.stderr


def test_a_dry_run_prints_the_lessons_with_what_they_are_given_and_leaves_nothing(course):
    for out in ([], ["--out", "new"]):
        done = run("--only", "05_comparison, 1", "-p", "seeds", "[7]", "--dry-run", *out)
        assert done.exit_code == 0, done.output
        assert [line.split() for line in done.output.splitlines()] == [
            ["01_data", "not", "run"],
            ["05_comparison", "not", "run", "seeds=[7]"],
        ]
    assert not list(Path().iterdir())


def test_without_mnist_5000_of_its_digits_are_taken_and_that_is_said(course, tmp_path, monkeypatch):
    write_notebook(course / "01_data.ipynb", DATA.replace('"digits"', '"mnist"'), "print(dataset)")
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))  # nothing can be downloaded into a file
    for variable in ("MNIST_NPZ", "TRANSFER_TUTORIAL_DATA"):
        monkeypatch.delenv(variable, raising=False)
    done = run("--only", "01", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "using 5,000 of its digits instead" in done.output and "dataset=mnist_5k" in done.output
    assert run("--only", "01", "--dataset", "mnist", "--dry-run").exit_code == 2


def test_a_run_leaves_notebooks_pages_results_and_a_record(course, home, tmp_path, monkeypatch):
    kernels = tmp_path / "share" / "kernels" / "python3"  # a different installation's kernel with the same name
    kernels.mkdir(parents=True)
    (kernels / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "other", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    Path("digits").touch()  # a file named like a dataset does not replace it
    done = run("--dataset", "digits", "-p", "seed", "3", "-p", "seeds", "[1, 2]", "-p", "run_dir", "shared")
    assert done.exit_code == 0, done.output
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("digits-")
    assert {path.name for path in folder.iterdir()} == {
        *("artefacts", "html", "index.html", "key-figure.png", "lessons", "results.csv", "run.json")
    }
    assert [path.name for path in sorted((folder / "html").iterdir())] == [
        *("01_data.html", "03_pretraining.html", "05_comparison.html")
    ]
    assert outputs(folder, "01_data") == f"{sys.executable} digits 3\n"
    kept = record(folder)
    assert (kept["status"], status(folder)) == ("done", ["done"] * 3)
    repeated = "transfer-tutorial run --only 01,03,05 -p seed 3 -p seeds '[1, 2]' -p run_dir shared -p dataset digits"
    assert kept["commands"] == [f"cd {Path.cwd()} && {repeated}"]
    assert kept["dataset"]["name"] == "digits" and len(kept["dataset"]["sha256"]) == 64
    assert kept["lessons"][1]["parameters"]["epochs"] == 5 and "seeds" not in kept["lessons"][1]["parameters"]
    assert kept["made_with"]["versions"]["tensorflow"]
    assert kept["made_with"]["machine"]["threads"] >= 1
    _, first, *rows = (folder / "results.csv").read_text().splitlines()
    assert first == "03,source,5 6 7 8 9,scratch,all,0,10,0.9876543210987654,1.5"  # with every digit
    assert {tuple(row.split(",")[3:6]) for row in rows} == set(
        itertools.product(("scratch", "frozen"), ("10", "50", "all"), ("1", "2"))
    )
    table = [line.split() for line in done.output.splitlines()]
    assert ["05", "target", "0", "1", "2", "3", "4", "frozen", "87.50", "87.50", "87.50", "2"] in table
    index = (folder / "index.html").read_text()
    assert f"data:image/png;base64,{PNG}" in index
    assert 'alt="It &#34;rises&#34; &lt;fast&gt;"' in index
    assert str(folder.absolute() / "index.html") in done.output

    both = run("--only", "05", "-p", "run_dir", "shared", "-p", "strategies", "[frozen]", "--out", "other")
    assert both.exit_code == 0, both.output
    assert len(Path("other/results.csv").read_text().splitlines()) == 1 + 6, "its own results alone"
    assert len(list((home / "shared").glob("weights-*.bin"))) == 1, "the weights of both"


def test_no_run_is_written_over_an_earlier_one(tmp_path):
    assert [_make_folder(tmp_path / "digits").name for _ in range(3)] == ["digits", "digits-2", "digits-3"]


# Resuming runs that failed, were damaged, or were stopped


def test_a_lesson_that_fails_ends_the_run_with_the_cell_and_resume_continues_there(course):
    folder, trap = Path("a {run} <i>").absolute(), Path("trap").absolute()
    command = ["--only", "03,05", "-p", "trap", trap, "--out", folder]
    rows = "import os\nPath(os.environ['TRANSFER_TUTORIAL_RESULTS'], 'results-05.csv').write_text('lesson\\n05\\n')"
    for fault, says, limit in (
        (f"{rows}\nraise KeyError('<b>')", "KeyError: '<b>'", []),
        ("import os\nos._exit(1)", "probably ran out of memory, so shut down other kernels before you resume", []),
        ("import time\ntime.sleep(60)", "timed out", ["--timeout", "3"]),
    ):
        trap.write_text(fault)
        failed = run(*command, *limit)
        assert failed.exit_code == 1
        assert "Error: lesson 05_comparison, cell [4]: " in failed.output and "Traceback" not in failed.output
        assert says in failed.output and str(folder / "lessons" / "05_comparison.ipynb") in failed.output
        assert status(folder) == ["done", "failed"]
        assert len((folder / "results.csv").read_text().splitlines()) == 2
        index = (folder / "index.html").read_text()
        assert "cell [4]" in index and "<b>" not in index
        program, *command = shlex.split(failed.output.splitlines()[-1].removeprefix("To resume: "))
        assert [program, *command] == ["transfer-tutorial", "run", "--resume", str(folder), *limit]
        command = command[1:3]
    assert outputs(folder, "05_comparison") == "before\n"
    finished = (folder / "lessons" / "03_pretraining.ipynb").read_bytes()
    trap.unlink()
    older = {name: value for name, value in record(folder).items() if name not in ("photos", "backbone")}
    (folder / "run.json").write_text(json.dumps(older))  # as written by a version without lesson 06
    resumed = run(*command)
    assert resumed.exit_code == 0, resumed.output
    assert status(folder) == ["done"] * 2
    assert (folder / "lessons" / "03_pretraining.ipynb").read_bytes() == finished
    assert len((folder / "results.csv").read_text().splitlines()) == 14


@pytest.mark.parametrize("damaged", ["lessons/03_pretraining.ipynb", "artefacts/results-03.csv"])
def test_a_lesson_whose_files_were_damaged_runs_again_and_that_is_said(course, no_kernels, damaged: str):
    assert run("--only", "03", "--out", "run").exit_code == 0
    Path("run", damaged).write_bytes(Path("run", damaged).read_bytes()[:-20])
    planned = run("--resume", "run", "--dry-run")
    note = "Note: the notebook or results of lesson 03_pretraining are damaged; the lesson will run again"
    assert planned.output.splitlines()[0] == note
    assert planned.output.splitlines()[-1].split() == ["03_pretraining", "not", "run"]


def test_a_home_is_meant_where_a_shell_leaves_its_sign_as_it_is(course, no_kernels, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert run("--only", "01", "--out=~/mine").exit_code == 0
    assert (tmp_path / "home" / "mine" / "run.json").is_file() and not Path("~").exists()


def test_files_are_named_absolutely_and_resume_wants_the_same_data(course, no_kernels, tmp_path, monkeypatch):
    save_npz("own.npz")
    done = run("--dataset", "own.npz", "--only", "01")
    assert done.exit_code == 0, done.output
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("own-")
    assert record(folder)["parameters"] == {"dataset": str(Path("own.npz").absolute())}
    save_npz("own.npz", x_train=np.zeros((200, 8, 8), np.uint8))
    folder = folder.absolute()
    monkeypatch.chdir(tmp_path)
    changed = run("--resume", folder)
    assert changed.exit_code == 2
    assert "dataset has changed since this run started" in changed.output


@pytest.mark.parametrize("full", ["run.json", "01_data.ipynb", "results.csv", "01_data.html", "index.html"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(course, no_kernels, monkeypatch, full: str):
    publish, started = store._publish, full != "run.json"

    def publish_most(temporary: Path, path: Path) -> None:
        if path.name == full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        publish(temporary, path)

    with monkeypatch.context() as patched:
        patched.setattr(store, "_publish", publish_most)
        ended = run("--only", "01", "--dataset", "digits", "--out", "it's full")
    said = ended.output[ended.output.index("Error: ") :]
    assert ended.exit_code == 1 and "No space left on device" in said and "Traceback" not in said
    folder = f"""'{Path.cwd()}/it'"'"'s full'"""
    resume = f"To resume: transfer-tutorial run --resume {folder}\n"
    assert said.endswith(resume if started else "Nothing has run yet; repeat the same command\n")
    assert not list(Path("it's full").rglob(".*"))
    if started:
        assert run("--resume", "it's full").exit_code == 0
        assert record("it's full")["status"] == "done"


def check_stop(course: Path, number: int, *arguments: str) -> None:
    """Stop a run whose lesson hangs; it must say so, and leave a readable notebook and no kernel behind."""
    Path("trap").write_text("import os, time\nPath('pid').write_text(str(os.getpid()))\nwhile True: time.sleep(0.01)")
    process = start(course, *arguments)
    wait_until(lambda: Path("pid").is_file() and Path("pid").read_text())
    kernel = psutil.Process(int(Path("pid").read_text()))
    Path("pid").unlink()
    time.sleep(0.5)  # until the cell's output has arrived
    second = run("--resume", "run")
    assert second.exit_code == 2
    assert second.output.startswith("Error: --resume: another process is working in 'run'; wait until it ends")
    assert record("run")["status"] == "running"
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    stopped = "running" if number == signal.SIGKILL else "interrupted"
    assert (record("run")["status"], status("run")) == (stopped, [stopped])
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert "--resume" in errors and "Traceback" not in errors and "KeyboardInterrupt" not in errors
        assert outputs("run", "05_comparison") == "before\n"
    assert len(notebooks.code_cells(Path("run/lessons/05_comparison.ipynb"))) == 6  # readable, including papermill's
    wait_until(lambda: not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE)


def test_a_run_that_is_stopped_leaves_no_kernel_and_can_be_resumed_but_not_twice_at_once(course):
    check_stop(course, signal.SIGINT, "--only", "05", "-p", "trap", "trap", "--out", "run")
    check_stop(course, signal.SIGKILL, "--resume", "run")
    Path("trap").unlink()
    resumed = run("--resume", "run")
    assert resumed.exit_code == 0, resumed.output
    assert (record("run")["status"], status("run")) == ("done", ["done"])
    assert len(Path("run/results.csv").read_text().splitlines()) == 13
