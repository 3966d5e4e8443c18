"""Binder's build: repo2docker finds the environment and postBuild, and postBuild does its work."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
REPO2DOCKER = shutil.which("jupyter-repo2docker", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
REFUSED = "http://127.0.0.1:9"  # a proxy that does not exist


def run(command: list[object], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True
    )


@pytest.fixture
def empty_environment(tmp_path) -> Path:
    """Make a virtual environment with every installed package except the course; return its bin folder.

    A `.pth` file adds this interpreter's packages. Python does not read the `.pth` files among them, so an editable
    installation of the course is not importable.
    """
    folder = tmp_path / "environment"
    venv.create(folder)
    bin_folder = folder / ("Scripts" if os.name == "nt" else "bin")
    own = run([bin_folder / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], tmp_path)
    installed = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    Path(own.stdout.strip(), "installed.pth").write_text("\n".join(installed))
    return bin_folder


@pytest.mark.skipif(REPO2DOCKER is None, reason="jupyter-repo2docker is not installed")
def test_repo2docker_builds_from_our_environment_and_runs_our_postbuild(clone):
    done = run([REPO2DOCKER, "--no-build", "--debug", "."], clone)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    assert re.search(r'env update .* --file "binder/environment.yml"', printed)
    assert re.search(r"(?m)^RUN \./binder/postBuild$", printed)


@pytest.mark.binder
def test_postbuild_installs_the_course_and_survives_a_failed_download(clone, empty_environment, tmp_path):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    python = empty_environment / "python"
    environment = {"HOME": str(home), "KERAS_HOME": str(home / ".keras"), "MNIST_NPZ": "", "PYTHONPATH": ""}
    environment["TRANSFER_TUTORIAL_DATA"] = ""
    environment |= {"PATH": f"{empty_environment}{os.pathsep}{os.environ['PATH']}", "NO_PROXY": "", "no_proxy": ""}
    environment |= dict.fromkeys(["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"], REFUSED)
    before = run([python, "-c", "import helpers"], elsewhere, **environment)
    assert "No module named 'helpers'" in before.stderr

    built = run(["./binder/postBuild"], clone, **environment)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "warning: MNIST could not be fetched" in built.stderr
    assert not [path for path in home.rglob("*") if path.suffix in (".npz", ".h5", ".zip")]

    imported = run([python, "-c", "import helpers; print(helpers.__file__)"], elsewhere, **environment)
    assert imported.stdout.strip() == str(clone / "helpers" / "__init__.py"), imported.stderr
    version = run([empty_environment / "transfer-tutorial", "--version"], elsewhere, **environment)
    assert version.returncode == 0, version.stderr
