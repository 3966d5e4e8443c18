"""The command line, with real kernels on three tiny lessons that train nothing."""

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from refusals import covers
from tiny_course import DATA, PNG, outputs, record, run, save_npz, status, write_lesson

from helpers.runner import notebooks, parameters
from helpers.runner.batch import _make_folder
from helpers.runner.cli import main

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


def test_help_imports_nothing_heavy_and_the_parameters_of_the_lessons_are_checked_without_tensorflow(python):
    done = python(IMPORTED, MNIST_NPZ="mnist.npz")
    assert done.stdout == "[]\ndigits\n[]\n", done.stderr


def test_a_lesson_goes_by_its_number_or_its_name(course):
    assert {notebooks.lesson(name).title for name in ("03", "3", "03_pretraining")} == {"03 · Lesson"}
    found = notebooks.defaults(course / "03_pretraining.ipynb")
    assert (found["learning_rate"], found["source_classes"]) == (1.0, [5, 6, 7, 8, 9])


@pytest.mark.parametrize("default", ["10**-3", '"%s" % 3', "{[]: 1}", "[1] * 3"])
def test_a_default_that_has_to_be_computed_says_nothing_of_a_type(course, default):
    write_lesson(course, "09_own", f"rate = {default}", "print(rate)")
    found = notebooks.lesson("09")
    assert notebooks.defaults(found.path) == {"rate": None}
    parameters.check([found], {"rate": 0.5})
    parameters.check([found], {"rate": "text"})


def test_a_run_leaves_notebooks_pages_results_and_a_record(course, tmp_path, monkeypatch):
    kernels = tmp_path / "share" / "kernels" / "python3"  # another installation's kernel under the same name
    kernels.mkdir(parents=True)
    (kernels / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "other", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    Path("digits").touch()  # a file with the name of a dataset is not the dataset
    done = run("--dataset", "digits")
    assert done.exit_code == 0, done.output
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("digits-")
    assert {path.name for path in folder.iterdir()} == {
        *("artefacts", "html", "index.html", "key-figure.png", "lessons", "results.csv", "run.json")
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


@covers("MNIST that cannot be downloaded")
def test_without_mnist_5000_of_its_digits_are_taken_and_that_is_said(course, tmp_path, monkeypatch):
    write_lesson(course, "01_data", DATA.replace('"digits"', '"mnist"'), "print(dataset)")
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))  # nothing can be downloaded into a file
    for variable in ("MNIST_NPZ", "TRANSFER_TUTORIAL_DATA"):
        monkeypatch.delenv(variable, raising=False)
    done = run("--only", "01", "--out", "run")
    assert done.exit_code == 0, done.output
    assert "running on 5,000 of its digits" in done.output
    assert outputs("run", "01_data") == "mnist_5k\n"
    refused = run("--only", "01", "--dataset", "mnist")
    assert refused.exit_code == 2
    assert all(word in refused.output for word in ("MNIST_NPZ", 'dataset="mnist_5k"'))


@covers("a cell that fails")
def test_a_cell_that_fails_ends_the_run_and_resume_goes_on_there(course):
    Path("trap").write_text("raise KeyError('<b>')")
    folder = Path("a {run} <i>").absolute()
    failed = run("--only", "03,05", "-p", "trap", Path("trap").absolute(), "--out", folder)
    assert failed.exit_code == 1
    assert "Error: lesson 05_comparison, cell [4]: KeyError: '<b>'" in failed.output
    assert str(folder / "lessons" / "05_comparison.ipynb") in failed.output
    assert status(folder) == ["done", "failed"]
    assert outputs(folder, "05_comparison") == "before\n"
    assert len((folder / "results.csv").read_text().splitlines()) == 2
    index = (folder / "index.html").read_text()
    assert "KeyError: &#39;&lt;b&gt;&#39;" in index
    assert "<b>" not in index

    finished = (folder / "lessons" / "03_pretraining.ipynb").read_bytes()
    Path("trap").unlink()
    older = {name: value for name, value in record(folder).items() if name not in ("photos", "backbone")}
    (folder / "run.json").write_text(json.dumps(older))  # a version without lesson 06 wrote so
    resumed = run("--resume", folder)
    assert resumed.exit_code == 0, resumed.output
    assert status(folder) == ["done"] * 2
    assert (folder / "lessons" / "03_pretraining.ipynb").read_bytes() == finished
    assert len((folder / "results.csv").read_text().splitlines()) == 14


@covers("data that changed in between")
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


def test_a_run_whose_pages_cannot_be_written_is_no_longer_running_and_can_go_on(course, monkeypatch):
    def write(*given):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("helpers.runner.report.write_run", write)
        failed = run("--only", "01", "--out", "run")
    assert failed.exit_code == 1
    assert "Error: OSError: no space left on device\nTo go on: transfer-tutorial run --resume" in failed.output
    assert (record("run")["status"], status("run")) == ("failed", ["done"])
    assert run("--resume", "run").exit_code == 0


def test_a_dry_run_prints_the_lessons_with_what_they_are_given_and_leaves_nothing(course):
    for out in ([], ["--out", "new"]):
        done = run("--only", "1,05", "-p", "seeds", "[7]", "--dry-run", *out)
        assert done.exit_code == 0, done.output
        assert [line.split() for line in done.output.splitlines()] == [
            ["lesson", "status", "given"],
            ["01_data", "not", "run"],
            ["05_comparison", "not", "run", "seeds=[7]"],
        ]
    assert not list(Path().iterdir())
    assert run("--dataset", "letters", "--dry-run").exit_code == 2


def test_a_cell_that_takes_too_long_fails_and_the_command_that_goes_on_can_be_copied(course):
    Path("trap").write_text("import time; time.sleep(60)")
    failed = run("--only", "05", "-p", "trap", Path("trap").absolute(), "--timeout", "2", "--out", "slow")
    assert failed.exit_code == 1
    assert "cell [4]: " in failed.output and "timed out" in failed.output
    program, *command = shlex.split(failed.output.splitlines()[-1].removeprefix("To go on: "))
    assert program == "transfer-tutorial"
    assert command == ["run", "--resume", str(Path("slow").absolute()), "--timeout", "2"]
    Path("trap").unlink()
    planned = run(*command[1:], "--dry-run")
    assert planned.output.splitlines()[-1].split()[:3] == ["05_comparison", "not", "run"]
    assert run(*command[1:]).exit_code == 0
    assert status("slow") == ["done"]


def test_run_and_sweep_share_options_and_each_help_has_an_example():
    shared = {"--dataset", "-p", "--out", "--resume", "--timeout", "--dry-run"}
    for name in ("run", "sweep", "lessons"):
        text = CliRunner().invoke(main, [name, "--help"]).output
        assert re.search(rf"Example:\n +transfer-tutorial {name} ", text)
        if name != "lessons":
            assert shared <= set(re.findall(r"^  (-[\w-]+)", text, flags=re.MULTILINE))
            assert "papermill --help-notebook DIR/05_transfer_comparison.ipynb" in text


def test_no_run_is_written_over_an_earlier_one(tmp_path):
    assert [_make_folder(tmp_path / "digits").name for _ in range(3)] == ["digits", "digits-2", "digits-3"]
