"""The package's structure: which module may import which, and what a wheel contains."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import cloned

import helpers.runner

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "helpers"
MODULES = [path for path in PACKAGE.rglob("*.py") if path.parent.name != ".ipynb_checkpoints"]


def table(docstring: str) -> list[str]:
    """Read a docstring's modules, in order, from the sentence that lists them."""
    return re.findall(r"`(\w+)`", docstring.split("only from modules listed before it: ")[1].split(".")[0])


SCIENCE, RUNNER = table(helpers.__doc__), table(helpers.runner.__doc__)
KNOW_NETWORKS = {"backend", "cnn", "training", "transfer", "experiment"}


def name_of(path: Path) -> str:
    """Return a file's module below `helpers`, such as runner.cli; a package is named after its folder."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__").removesuffix("__init__")


def imported(path: Path) -> Iterator[str]:
    """Yield the modules below `helpers` that a file imports anywhere, such as runner.notebooks or cnn."""
    known = {name_of(module) for module in MODULES}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            below = name.removeprefix("helpers.")
            if below != name and "helpers." in name:
                yield below if below in known else below.rpartition(".")[0]


IMPORTS = {name_of(path): set(imported(path)) - {""} for path in MODULES}


def room(module: str) -> str:
    """Return the table entry for a module; a package's files count as the package."""
    return module.removeprefix("runner.").split(".")[0]


def test_the_tables_name_each_module_once():
    modules = IMPORTS.keys() - {"", "runner"}
    assert {room(module) for module in modules if not module.startswith("runner.")} == set(SCIENCE)
    assert {room(module) for module in modules if module.startswith("runner.")} == set(RUNNER)
    assert len(SCIENCE + RUNNER) == len({*SCIENCE, *RUNNER})
    assert {"cnn", "images", "tasks", "training"} <= IMPORTS["transfer"], "the imports are not read"


@pytest.mark.parametrize("module", sorted(IMPORTS))
def test_a_module_imports_only_from_above_it_in_its_table(module: str):
    for other in IMPORTS[module]:
        if not module.startswith("runner"):
            assert not other.startswith("runner"), "the science knows no notebooks"
        if module.startswith("runner") == other.startswith("runner") and room(module) != room(other):
            table = RUNNER if module.startswith("runner") else SCIENCE
            assert table.index(room(other)) < table.index(room(module)), f"{module} imports {other}"


def test_of_the_runner_only_the_parameters_know_networks():
    assert "experiment" in IMPORTS["runner.parameters"]
    for module, others in IMPORTS.items():
        if module.startswith("runner") and module != "runner.parameters":
            assert not others & KNOW_NETWORKS, module


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel of a clone."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, folder]
    ran = subprocess.run(command, cwd=cloned(folder / "clone"), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (wheel,) = folder.glob("transfer_learning_tutorial-*.whl")
    return wheel


def test_a_wheel_holds_every_module_template_and_lesson(wheel):
    files = [path for name in ("runner/templates", "data") for path in (PACKAGE / name).rglob("*") if path.is_file()]
    wanted = [*MODULES, PACKAGE / "py.typed", PACKAGE / "plots" / "course.mplstyle", *files]
    lessons = {f"helpers/notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("helpers/")}
    assert held == {path.relative_to(ROOT).as_posix() for path in wanted} | lessons
    assert wheel.stat().st_size < 7e6  # bytes


@pytest.fixture
def installed(wheel: Path, tmp_path: Path, monkeypatch) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Install the wheel outside the repository; return a function that runs Python there, in an empty folder."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "work").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("TRANSFER_TUTORIAL_HOME")
    environ = {**os.environ, "HOME": str(tmp_path / "home"), "PYTHONPATH": str(tmp_path / "site")}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *command], env=environ, capture_output=True, text=True)

    return run


CLI = "from helpers.runner.cli import main; main()"


def test_an_installed_wheel_writes_the_lessons_and_their_runs_into_the_working_directory(installed, tmp_path):
    written = installed("-c", CLI, "lessons", "mine")
    assert (written.returncode, written.stderr) == (0, "")
    assert len(list(Path("mine").glob("0*.ipynb"))) == 8
    planned = installed("-c", CLI, "run", "--dataset", "digits", "--only", "01,5", "--dry-run")
    assert "01_data_split" in planned.stdout and "05_transfer_comparison" in planned.stdout, planned.stderr
    folder = installed("-c", "from helpers.folders import run_folder; print(run_folder())")
    assert folder.stdout == f"{tmp_path / 'work' / 'runs' / 'lessons'}\n"
    assert [path.name for path in Path().iterdir()] == ["mine"]


@pytest.mark.outside
@pytest.mark.notebook
def test_an_installed_wheel_runs_the_lessons_with_photos_and_your_images_offline(offline, installed, tmp_path):
    before = sorted((tmp_path / "site").rglob("*.ipynb"))
    done = installed("-c", CLI, "run", "--dataset", "digits", "--only", "06,07", "-p", "seeds", "[0]")
    assert done.returncode == 0, done.stderr
    assert len(list(Path("runs").glob("digits-*/index.html"))) == 1
    assert sorted((tmp_path / "site").rglob("*.ipynb")) == before
