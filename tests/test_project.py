"""Promises of the repository itself: what it installs, how it is formatted."""

import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import lock
import mutations
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.datasets import KERAS_DATASETS, MNIST_NPZ_HASH

ROOT = Path(__file__).resolve().parents[1]


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", requirement).group().lower() for requirement in requirements}


# Versions: ranges in pyproject.toml, exact ones in requirements.lock and environment.yml

PROJECT, LOCK, ENVIRONMENT = (path.read_text(encoding="utf-8") for path in (lock.PROJECT, lock.LOCK, lock.ENVIRONMENT))


def disagreements(project: str, locked: str, environment: str) -> list[str]:
    """Say what does not fit together of the three files' texts."""
    found = [] if lock.digest(project) in locked else ["the lock was made from other ranges"]
    versions = {}
    for entry in lock.read(locked):
        versions.setdefault(entry.name, []).append(entry.version)
    for line in itertools.chain(*lock.ranges(project).values()):
        wanted = Requirement(line)
        name = canonicalize_name(wanted.name)
        if name != "transfer-learning-tutorial" and not all(map(wanted.specifier.contains, versions.get(name, ["0"]))):
            found.append(f"{line} does not allow {versions.get(name)}")
    *conda, rest = yaml.safe_load(environment)["dependencies"]
    if conda != [f"python={lock.CONDA_PYTHON}", "pip"] or rest["pip"] != lock.environment(lock.read(locked), project):
        found.append("environment.yml has other packages than the lock")
    return found


def test_ranges_lock_and_environment_agree():
    assert disagreements(PROJECT, LOCK, ENVIRONMENT) == []
    assert len(lock.read(LOCK)) == len(re.findall(r"(?m)^[a-z0-9]", LOCK)) > 100


@pytest.mark.parametrize(
    ("project", "locked", "environment"),
    [
        (PROJECT.replace('"numpy>=2.0,', '"numpy>=2.1,'), LOCK, ENVIRONMENT),
        (PROJECT.replace('"pandas>=2.2,<4"', '"pandas>=2.2,<3"'), LOCK, ENVIRONMENT),
        (PROJECT.replace('    "pooch>=1.8,<2",\n', ""), LOCK, ENVIRONMENT),
        (PROJECT, re.sub(r"(?m)^papermill==\S+", "papermill==2.5.0", LOCK), ENVIRONMENT),
        (PROJECT, LOCK, re.sub(r"- keras==\S+", "- keras", ENVIRONMENT)),
        (PROJECT, LOCK, re.sub(r" +- tornado==\S+\n", "", ENVIRONMENT)),
        (PROJECT, LOCK, ENVIRONMENT.replace("python=3.12", "python=3.13")),
    ],
    ids=["a bound", "a narrower range", "a range gone", "a version", "no version", "a line gone", "Python"],
)
def test_one_of_them_cannot_be_edited_alone(project: str, locked: str, environment: str):
    assert (project, locked, environment) != (PROJECT, LOCK, ENVIRONMENT)
    assert disagreements(project, locked, environment) != []


def test_every_locked_file_has_a_hash_and_none_a_place_to_fetch_it_from():
    for entry in re.split(r"\n(?=[a-z0-9])", LOCK):
        assert entry.startswith("#") or "--hash=sha256:" in entry
    assert not re.search(r"https?:|://|-index|find-links|@ ", LOCK + ENVIRONMENT)


def test_every_imported_package_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = names(project["dependencies"]) | names(project["optional-dependencies"]["sweep"])
    distributions = {"yaml": "pyyaml", "sklearn": "scikit-learn", "PIL": "pillow"}
    for module in (ROOT / "helpers").rglob("*.py"):
        imported = re.findall(r"^\s*(?:from|import) (\w+)", module.read_text(), flags=re.M)
        outside = set(imported) - set(sys.stdlib_module_names) - {"helpers"}
        missing = {name for name in outside if distributions.get(name, name).lower() not in declared}
        assert not missing, f"{module.name} imports {missing}"


def test_binder_uses_the_same_environment():
    link = ROOT / "binder" / "environment.yml"
    assert link.is_symlink() and link.resolve() == ROOT / "environment.yml"
    assert (ROOT / "binder" / "postBuild").stat().st_mode & 0o111, "repo2docker runs it, so it is executable"


@pytest.mark.parametrize("fault", mutations.FAULTS, ids=lambda fault: fault.name)
def test_every_fault_that_mutations_tries_still_has_its_place(fault: mutations.Fault):
    source = (ROOT / "helpers" / f"{fault.module}.py").read_text(encoding="utf-8")
    assert source.count(fault.old) == 1


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_code_and_notebooks_are_formatted(command):
    ran = subprocess.run([sys.executable, "-m", "ruff", *command, str(ROOT)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_public_checks_fetch_the_mnist_that_the_course_would():
    action = (ROOT / ".github" / "actions" / "mnist" / "action.yml").read_text(encoding="utf-8")
    assert action.count(MNIST_NPZ_HASH.removeprefix("sha256:")) == 2  # the cache's key, and the check
    assert f"{KERAS_DATASETS}mnist.npz" in action


def test_the_readme_is_one_screen_and_lists_the_lessons_as_the_first_page_of_the_site_does():
    readme, first_page = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/index.md"))
    assert len(readme.splitlines()) <= 90
    assert max(map(len, readme.splitlines())) <= 160
    listed, there = (re.findall(r"(?m)^\| \[\d\d .+", text) for text in (readme, first_page))
    assert [row.replace("(notebooks/", "(../notebooks/") for row in listed] == there
    lessons = sorted(path.name for path in ROOT.glob("notebooks/*.ipynb"))
    assert re.findall(r"\(notebooks/(\w+\.ipynb)\)", "".join(listed)) == lessons
