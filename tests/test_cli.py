"""The command line, with real kernels on three tiny lessons that train nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
from click.testing import CliRunner, Result
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from helpers import lessons
from helpers.cli import _make_folder, main
from helpers.runs import REPOSITORY

DATA = """
dataset: str = "digits"  # a name, or the path of an .npz file
source_classes: list = [5, 6, 7, 8, 9]  # labels of the source task
target_classes: list = [0, 1, 2, 3, 4]  # labels of the target task
validation_fraction: float = 0.1  # share held out
seed: int = 0  # every random draw follows from it
"""
TRAINING = """
learning_rate: float = 1.0  # step size
epochs: int = 5  # passes
batch_size: int = 128  # images per update
min_updates: int = 300  # fewest updates
frozen_convs: int = 2  # frozen convolutions
filters: int = 32  # feature maps
run_dir: str = "runs/lessons"  # run folder
"""
COMPARING = """
strategies: list = ["scratch", "frozen"]  # what to compare
labels_per_class: list = [10, 50, "all"]  # label budgets
seeds: list = [0, 1]  # repetitions
recipe: str = "fast"  # named recipe
trap: str = ""  # a file; if it is there, its content is executed
run_dir: str = "runs/lessons"  # run folder
"""
SAVE = """
from pathlib import Path

columns = "lesson,task,classes,strategy,labels_per_class,seed,updates,test_accuracy,train_seconds"
Path(run_dir).mkdir(parents=True, exist_ok=True)
Path(run_dir, f"results-{number}.csv").write_text("\\n".join([columns, *rows]) + "\\n")
"""
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
FIGURE = f"display({{'image/png': '{PNG}'}}, raw=True, metadata={{'image/png': {{'alt': 'It \"rises\" <fast>'}}}})"


def write_lesson(folder: Path, name: str, parameters: str, *code: str) -> None:
    cells = [new_markdown_cell(f"# {name[:2]} · Lesson\n\nProse."), new_code_cell(parameters.strip())]
    cells[1].metadata["tags"] = ["parameters"]
    cells += [new_code_cell(source.strip()) for source in code]
    if code[-1] == FIGURE:
        cells[-1].metadata["tags"] = ["key-figure"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(
        new_notebook(cells=cells, metadata={**kernel, "language_info": {"name": "python"}}), folder / f"{name}.ipynb"
    )


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three lessons in an empty working directory: 01 prints, 03 and 05 leave results, a trap makes 05 fail or hang."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write_lesson(folder, "01_data", DATA, "import sys\nprint(sys.executable, dataset, seed)")
    pretraining = "number, rows = '03', ['03,source,5 6 7 8 9,scratch,all,0,10,0.9876543210987654,1.5']"
    write_lesson(folder, "03_pretraining", DATA + TRAINING, pretraining, SAVE)
    row = "f'05,target,0 1 2 3 4,{s},{b},{n},10,{0.5 + n / 4},1.0'"
    compared = f"number, rows = '05', [{row} for n in seeds for s in strategies for b in labels_per_class]"
    trap = (
        "print('before', flush=True)\nfrom pathlib import Path\nif Path(trap).is_file(): exec(Path(trap).read_text())"
    )
    write_lesson(folder, "05_comparison", DATA + COMPARING, compared, trap, SAVE, FIGURE)
    monkeypatch.setattr(lessons, "NOTEBOOKS", folder)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["run", *map(str, arguments)])


def record(folder: Path | str) -> dict:
    return json.loads(Path(folder, "run.json").read_text())


def status(folder: Path | str) -> list[str]:
    return [lesson["status"] for lesson in record(folder)["lessons"]]


def outputs(folder: Path | str, lesson: str) -> str:
    """All that the cells of an executed lesson printed."""
    cells = nbformat.read(Path(folder, "lessons", f"{lesson}.ipynb"), as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def save_npz(path: str, **changes: np.ndarray | None) -> None:
    """A small dataset of ten classes; a change replaces an array, or leaves it out."""
    labels = np.repeat(np.arange(10), 20)
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8)
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from click.testing import CliRunner; from helpers.cli import main; "
        "print(CliRunner().invoke(main, ['run', '--help']).output); "
        "print(sorted({'tensorflow', 'pandas', 'numpy', 'papermill', 'nbconvert'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True).stdout
    assert "--resume" in printed
    assert printed.strip().endswith("[]")


def test_parameters_of_the_real_lessons_are_checked_without_tensorflow():
    code = (
        "import sys; from helpers.lessons import *; "
        "print(check_parameters(lessons(), {'dataset': 'digits'}).name, {'tensorflow', 'keras'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout == "digits set()\n", done.stderr


def test_a_lesson_goes_by_its_number_or_its_name(course):
    assert {lessons.lesson(name).title for name in ("03", "3", "03_pretraining")} == {"03 · Lesson"}
    found = lessons.parameters(course / "03_pretraining.ipynb")
    assert found["learning_rate"] == lessons.Parameter("learning_rate", "float", 1.0, "step size")
    assert found["source_classes"].default == [5, 6, 7, 8, 9]


def test_a_run_leaves_notebooks_pages_results_and_a_record(course, tmp_path, monkeypatch):
    kernels = tmp_path / "share" / "kernels" / "python3"  # another installation's kernel under the same name
    kernels.mkdir(parents=True)
    (kernels / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "other", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    done = run("--dataset", "digits")
    assert done.exit_code == 0, done.output
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("digits-")
    assert {path.name for path in folder.iterdir()} == {
        *("artefacts", "html", "index.html", "lessons", "results.csv", "run.json")
    }
    assert [path.name for path in sorted((folder / "html").iterdir())] == [
        *("01_data.html", "03_pretraining.html", "05_comparison.html")
    ]
    assert outputs(folder, "01_data") == f"{sys.executable} digits 0\n"
    kept = record(folder)
    assert (kept["status"], status(folder)) == ("done", ["done"] * 3)
    assert kept["dataset"]["name"] == "digits"
    assert len(kept["dataset"]["sha256"]) == 64
    assert kept["lessons"][1]["parameters"]["epochs"] == 5
    assert kept["made_with"]["versions"]["tensorflow"]
    assert kept["made_with"]["machine"]["threads"] >= 1
    rows = (folder / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + 1 + 2 * 2 * 3  # a header, one pretraining, and strategies x budgets x seeds
    assert rows[1] == "03,source,5 6 7 8 9,scratch,all,0,10,0.9876543210987654,1.5"  # to the last digit
    table = [line.split() for line in done.output.splitlines()]
    assert ["05", "target", "0", "1", "2", "3", "4", "frozen", "62.50", "62.50", "62.50", "2"] in table
    index = (folder / "index.html").read_text()
    assert f"data:image/png;base64,{PNG}" in index
    assert 'alt="It &#34;rises&#34; &lt;fast&gt;"' in index
    assert str(folder.absolute() / "index.html") in done.output


def test_values_are_yaml_and_reach_the_lessons_that_have_them(course):
    done = run(
        "--only", "5,01", "-p", "seeds", "[7]", "-p", "strategies", "[frozen]", "-p", "seed", "3", "--out", "new/one"
    )
    assert done.exit_code == 0, done.output
    assert [lesson["name"] for lesson in record("new/one")["lessons"]] == ["01_data", "05_comparison"]
    assert outputs("new/one", "01_data").endswith("digits 3\n")
    assert "seeds" not in record("new/one")["lessons"][0]["parameters"]
    rows = Path("new/one/results.csv").read_text().splitlines()[1:]
    assert {(row.split(",")[3], row.split(",")[5]) for row in rows} == {("frozen", "7")}


def test_without_mnist_the_digits_are_taken_and_that_is_said(course, tmp_path, monkeypatch):
    write_lesson(course, "01_data", DATA.replace('"digits"', '"mnist"'), "print(dataset)")
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))  # nothing can be downloaded into a file
    monkeypatch.delenv("MNIST_NPZ", raising=False)
    done = run("--only", "01", "--out", "run")
    assert done.exit_code == 0, done.output
    assert "running on the embedded digits" in done.output
    assert outputs("run", "01_data") == "digits\n"
    refused = run("--only", "01", "--dataset", "mnist")
    assert refused.exit_code == 2
    assert all(word in refused.output for word in ("MNIST_NPZ", 'dataset="digits"'))


def test_a_cell_that_fails_ends_the_run_and_resume_goes_on_there(course):
    Path("trap").write_text("raise KeyError('<b>')")
    folder = Path("a {run} <i>").absolute()
    failed = run("-p", "trap", Path("trap").absolute(), "--out", folder)
    assert failed.exit_code == 1
    assert "Error: lesson 05_comparison, cell [4]: KeyError: '<b>'" in failed.output
    assert str(folder / "lessons" / "05_comparison.ipynb") in failed.output
    assert status(folder) == ["done", "done", "failed"]
    assert outputs(folder, "05_comparison") == "before\n"
    assert len((folder / "results.csv").read_text().splitlines()) == 2
    index = (folder / "index.html").read_text()
    assert "KeyError: &#39;&lt;b&gt;&#39;" in index
    assert "<b>" not in index

    finished = (folder / "lessons" / "03_pretraining.ipynb").read_bytes()
    Path("trap").unlink()
    resumed = run("--resume", folder)
    assert resumed.exit_code == 0, resumed.output
    assert status(folder) == ["done"] * 3
    assert (folder / "lessons" / "03_pretraining.ipynb").read_bytes() == finished
    assert len((folder / "results.csv").read_text().splitlines()) == 14


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_no_kernel_and_can_go_on(course, number):
    Path("trap").write_text("import os, time\nPath('pid').write_text(str(os.getpid()))\nwhile True: time.sleep(0.01)")
    code = "import sys; from pathlib import Path; from helpers import cli, lessons; "
    code += "lessons.NOTEBOOKS = Path(sys.argv.pop(1)); cli.main()"
    command = [sys.executable, "-c", code, str(course), "run", "--only", "05", "-p", "trap", "trap", "--out", "run"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: Path("pid").is_file() and Path("pid").read_text())
    kernel = psutil.Process(int(Path("pid").read_text()))
    time.sleep(0.5)  # what the cell has printed is under way
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    if number == signal.SIGKILL:
        assert (record("run")["status"], status("run")) == ("running", ["running"])
    else:
        assert process.returncode == 128 + number
        assert "--resume" in errors
        assert "Traceback" not in errors
        assert (record("run")["status"], status("run")) == ("interrupted", ["interrupted"])
        assert outputs("run", "05_comparison") == "before\n"
    wait_until(lambda: not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE)

    Path("trap").unlink()
    assert run("--resume", "run").exit_code == 0
    assert status("run") == ["done"]
    assert len(Path("run/results.csv").read_text().splitlines()) == 13


def wait_until(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_files_are_named_absolutely_and_resume_wants_the_same_data(course, tmp_path, monkeypatch):
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
    assert "dataset is not the one" in changed.output


def test_no_run_is_written_over_an_earlier_one(tmp_path):
    assert [_make_folder(tmp_path / "digits").name for _ in range(3)] == ["digits", "digits-2", "digits-3"]


LABELS = np.repeat(np.arange(10), 20)
BAD_INPUT = [
    (["--only", "09"], "lesson: '09' is not known; allowed are 01_data, 03_pretraining, 05_comparison"),
    (["--only", ""], "lesson: ''"),
    (
        ["-p", "epoch", "3"],
        "epoch: no parameter of 01_data, 03_pretraining, 05_comparison has this name; known are batch",
    ),
    (["--only", "01", "-p", "epochs", "3"], "epochs: no parameter of 01_data has this name"),
    (["--dataset", "letters"], "dataset: 'letters' is not known"),
    (["--dataset", "missing.npz"], "dataset: there is no file 'missing.npz'"),
    (["--dataset", "text.npz"], "dataset: 'text.npz' cannot be read as an .npz file"),
    (["--dataset", "lacking.npz"], "dataset: 'lacking.npz' lacks y_test"),
    (["--dataset", "uneven.npz"], "x_train holds 199 images and y_train 200 labels"),
    (["--dataset", "digits", "-p", "dataset", "mnist"], "dataset: given twice"),
    (["-p", "dataset", "5"], "dataset: 5 is not a text"),
    (["-p", "source_classes", "[4, 5]"], "source_classes and target_classes both hold 4"),
    (["-p", "target_classes", "[]"], "target_classes: [] is not allowed"),
    (["-p", "target_classes", "[1]"], "target_classes: [1] is not allowed"),
    (["-p", "target_classes", "[1, 11]"], "target_classes: digits has no label 11"),
    (["-p", "target_classes", "5"], "target_classes: 5 is not a list"),
    (["-p", "target_classes", "[1,"], "target_classes: '[1,' cannot be read as YAML"),
    (["-p", "validation_fraction", "1.5"], "validation_fraction: 1.5 is not allowed"),
    (["-p", "validation_fraction", "0.001"], "validation_fraction: 0.001 of 716 images"),
    (["-p", "epochs", "0"], "epochs: 0 is not allowed"),
    (["-p", "epochs", "true"], "epochs: True is not a whole number"),
    (["-p", "epochs", "2.5"], "epochs: 2.5 is not a whole number"),
    (["-p", "batch_size", "-1"], "batch_size: -1 is not allowed"),
    (["-p", "min_updates", "0"], "min_updates: 0 is not allowed"),
    (["-p", "learning_rate", "fast"], "learning_rate: 'fast' is not a number"),
    (["-p", "learning_rate", "-1e-3"], "learning_rate: -0.001 is not allowed"),
    (["-p", "filters", "0"], "filters: 0 is not allowed"),
    (["-p", "frozen_convs", "3"], "frozen_convs: 3 is not allowed"),
    (["-p", "seed", "-1"], "seed: -1 is not a seed"),
    (["-p", "seeds", "[0, 0]"], "seeds: [0, 0] holds an entry twice"),
    (["-p", "recipe", "slow"], "recipe: 'slow' is not known"),
    (["-p", "strategies", "[scratch, magic]"], "strategies: 'magic' is not known"),
    (["-p", "strategies", "scratch"], "strategies: 'scratch' is not a list"),
    (
        ["-p", "labels_per_class", "[10, 1000]"],
        "labels_per_class: 1000 is more than the smallest class has; at most 128",
    ),
    (["-p", "labels_per_class", "[[10]]"], "labels_per_class: [[10]] is not a list like the default"),
    (["-p", "run_dir", "text.npz"], "run_dir: "),
    (["--out", "."], "--out: '.' exists and is not an empty folder"),
    (["--out", "text.npz"], "--out: 'text.npz' exists"),
    (["--resume", "."], "holds no run.json of a run that could go on"),
    (["--resume", ".", "--only", "01"], "--resume: takes everything from the run"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), BAD_INPUT, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input_gets_one_clear_line_and_leaves_nothing(course, monkeypatch, arguments, message):
    monkeypatch.setenv("TRANSFER_TUTORIAL_HOME", str(Path.cwd()))
    Path("text.npz").write_text("no archive")
    save_npz("lacking.npz", y_test=None)
    save_npz("uneven.npz", x_train=np.zeros((199, 8, 8), np.uint8))
    before = sorted(Path.cwd().rglob("*"))
    refused = run(*arguments)
    assert refused.exit_code == 2
    assert refused.output.startswith("Error: ")
    assert message in refused.output
    assert len(refused.output.splitlines()) == 1
    assert sorted(Path.cwd().rglob("*")) == before


def test_a_wrong_mnist_file_is_refused_by_its_variable(course, monkeypatch):
    monkeypatch.setenv("MNIST_NPZ", "nowhere/mnist.npz")
    refused = run("--dataset", "mnist", "--only", "01")
    assert refused.exit_code == 2
    assert refused.output.startswith("Error: MNIST_NPZ: there is no file")
