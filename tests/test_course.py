"""The whole course through the command line, on embedded digits: real papermill, real kernels, real TensorFlow."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from refresh_outputs import REFERENCE_PARAMETERS

from helpers.artefacts import write_text

REFERENCE = Path(__file__).resolve().parent / "reference"
TOLERANCE = 0.03  # of accuracy: 15 of 500 test images may change sides on another processor
DIGITS = ["--dataset", "digits"]


def transfer_tutorial(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line from a folder that is neither the repository nor the lessons'."""
    command = [sys.executable, "-P", "-c", "from helpers.runner.cli import main; main()", "run", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all lessons as in tests/reference/, into a path with a space; return the folder."""
    here = tmp_path_factory.mktemp("some where")
    given = [part for name, value in REFERENCE_PARAMETERS.items() for part in ("-p", name, json.dumps(value))]
    ran = transfer_tutorial(here, *given, "--out", "a run")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Open " in ran.stdout
    return here / "a run"


def test_every_lesson_runs_and_leaves_its_pages(default_run):
    record = json.loads((default_run / "run.json").read_text())
    assert [lesson["status"] for lesson in record["lessons"]] == ["done"] * 5
    assert len(list((default_run / "lessons").glob("*.ipynb"))) == 5
    assert len(list((default_run / "html").glob("*.html"))) == 5
    index = (default_run / "index.html").read_text()
    assert "data:image/png" in index and "random-frozen" in index


def test_results_have_one_row_per_training(default_run):
    rows = pd.read_csv(default_run / "results.csv", dtype={"lesson": str, "labels_per_class": str})
    assert len(rows[rows["lesson"] == "03"]) == 2  # published and repaired learning rate
    assert len(rows[rows["lesson"] == "04"]) == 5  # fresh and reused head, three depths of the cut
    assert len(rows[rows["lesson"] == "05"]) == 2 * (1 + 3 * 5)  # seeds x (pretraining + budgets x strategies)
    assert set(rows.query("task == 'source'")["strategy"]) == {"scratch"}
    assert rows[["updates", "test_images", "test_accuracy", "train_seconds"]].notna().all(axis=None)


@pytest.mark.parametrize("number", ["03", "04", "05"])
def test_results_agree_with_the_stored_ones(default_run, number):
    stored = pd.read_csv(REFERENCE / f"results-{number}.csv", dtype={"lesson": str, "labels_per_class": str})
    fresh = pd.read_csv(default_run / "results.csv", dtype={"lesson": str, "labels_per_class": str})
    fresh = fresh[fresh["lesson"] == number].reset_index(drop=True)
    exact = ["task", "classes", "strategy", "labels_per_class", "seed", "updates", "test_images"]
    assert fresh[exact].equals(stored[exact])
    assert (fresh["test_accuracy"] - stored["test_accuracy"]).abs().max() <= TOLERANCE


def test_a_run_repeated_from_its_record_gives_the_same_results(tmp_path):
    small = ["-p", "seeds", "[0, 1]", "-p", "labels_per_class", "[10]", "-p", "filters", "8", "-p", "dense_units", "32"]
    ran = transfer_tutorial(tmp_path, *DIGITS, "--only", "05", *small, "--out", "first")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    first = json.loads((tmp_path / "first" / "run.json").read_text())
    recorded = {**first["lessons"][0]["parameters"], "dataset": "digits"}
    given = [part for name, value in recorded.items() for part in ("-p", name, json.dumps(value))]
    ran = transfer_tutorial(tmp_path, "--only", "05", *given, "--out", "second")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    second = json.loads((tmp_path / "second" / "run.json").read_text())
    assert all(first[part] == second[part] for part in ("dataset", "made_with"))
    rows = [pd.read_csv(tmp_path / run / "results.csv", dtype=str) for run in ("first", "second")]
    compared = [column for column in rows[0] if not column.endswith("seconds")]
    assert len(rows[0]) == 2 * (1 + 5) and len(compared) == 12
    assert rows[0][compared].equals(rows[1][compared])


def test_tasks_of_other_sizes_name_the_right_classes(tmp_path):
    classes = ["-p", "source_classes", "[0, 1, 2, 3, 4, 5, 6]", "-p", "target_classes", "[7, 8, 9]"]
    small = ["-p", "seeds", "[0]", "-p", "labels_per_class", "[10]", "--only", "02,04,05"]
    ran = transfer_tutorial(tmp_path, *DIGITS, *classes, *small, "--out", "run")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = pd.read_csv(tmp_path / "run" / "results.csv")
    assert set(rows["classes"]) == {"0 1 2 3 4 5 6", "7 8 9"}
    assert "reused-head" not in set(rows["strategy"])
    lesson = (tmp_path / "run" / "lessons" / "05_transfer_comparison.ipynb").read_text()
    assert "reused-head is left out: the source task's head has 7 outputs and the target task 3 classes" in lesson
    assert "one seed gives no interval" in lesson


HOSTILE_STARTUP = """
import pandas
pandas.set_option("display.max_rows", 2)
pandas.set_option("display.precision", 1)
"""


def make_hostile(folder: Path) -> dict[str, str]:
    """Write settings of other programs into a folder, and a module in the way; return variables that point there."""
    kept = {
        "keras.json": '{"image_data_format": "channels_first", "floatx": "float64", "backend": "jax", "epsilon": 0.1}',
        "matplotlibrc": "text.usetex: True\nfigure.dpi: 40\nfont.size: 30\naxes.facecolor: black\n",
        "profile_default/startup/00.py": HOSTILE_STARTUP,
        "profile_default/ipython_config.py": "c = get_config()\nc.InteractiveShell.ast_node_interactivity = 'none'\n",
        "startup.py": "raise RuntimeError('PYTHONSTARTUP')",
        "helpers.py": "",
        "seaborn.py": "raise ImportError",
    }
    for name, content in kept.items():
        write_text(folder / name, content)
    paths = {"KERAS_HOME": "", "IPYTHONDIR": "", "MATPLOTLIBRC": "matplotlibrc", "PYTHONSTARTUP": "startup.py"}
    short = {"KERAS_MAX_EPOCHS": "1", "KERAS_MAX_STEPS_PER_EPOCH": "1", "KERAS_BACKEND": "jax", "LC_ALL": "C"}
    return {name: str(folder / path) for name, path in paths.items()} | short


def pictures(run: Path) -> list[str]:
    """Return the figures of a run's notebooks."""
    outputs = (
        output
        for path in sorted((run / "lessons").glob("*.ipynb"))
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", [])
    )
    return [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]


def test_settings_of_other_programs_change_neither_results_nor_figures(tmp_path, monkeypatch):
    small = ["-p", "filters", "4", "-p", "dense_units", "8", "-p", "min_updates", "20", "--only", "01,02,03"]
    runs = []
    for name in ("clean", "hostile"):
        here = tmp_path / name
        here.mkdir()
        if name == "hostile":
            for variable, value in make_hostile(here).items():
                monkeypatch.setenv(variable, value)
        ran = transfer_tutorial(here, *DIGITS, *small, "--out", "run")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        runs.append(here / "run")
    clean, hostile = (pd.read_csv(run / "results.csv", dtype=str) for run in runs)
    compared = [column for column in clean if not column.endswith("seconds")]
    assert clean[compared].equals(hostile[compared])
    assert len(pictures(runs[0])) == 8
    assert pictures(runs[0]) == pictures(runs[1])
