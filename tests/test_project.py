"""Promises of the repository itself: what it installs, how it is formatted, what importing it costs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", requirement).group().lower() for requirement in requirements}


def test_environment_lists_what_the_package_needs_and_nbval():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert names(pip) == names(project["dependencies"]) | {"nbval"}
    assert names(conda) == {"python", "pip"}
    assert not [entry for entry in pip if "/" in entry or entry.startswith(("-", "."))], "no local path"


def test_every_imported_package_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = names(project["dependencies"]) | names(project["optional-dependencies"]["sweep"])
    distributions = {"yaml": "pyyaml", "sklearn": "scikit-learn", "keras": "tensorflow", "IPython": "ipywidgets"}
    for module in (ROOT / "helpers").rglob("*.py"):
        imported = re.findall(r"^\s*(?:from|import) (\w+)", module.read_text(), flags=re.M)
        outside = set(imported) - set(sys.stdlib_module_names) - {"helpers"}
        missing = {name for name in outside if distributions.get(name, name).lower() not in declared}
        assert not missing, f"{module.name} imports {missing}"


def test_binder_uses_the_same_environment():
    link = ROOT / "binder" / "environment.yml"
    assert link.is_symlink() and link.resolve() == ROOT / "environment.yml"
    assert (ROOT / "binder" / "postBuild").stat().st_mode & 0o111, "repo2docker runs it, so it is executable"


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_code_and_notebooks_are_formatted(command):
    ran = subprocess.run([sys.executable, "-m", "ruff", *command, str(ROOT)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
