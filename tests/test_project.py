"""The repository itself: what it installs, and that its files agree."""

import itertools
import re
from pathlib import Path

import lock
import mutations
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


LOCK, ENVIRONMENT = (path.read_text(encoding="utf-8") for path in (lock.LOCK, lock.ENVIRONMENT))


def test_the_lock_and_the_environment_follow_from_the_ranges_of_pyproject():
    project = lock.PROJECT.read_text(encoding="utf-8")
    assert lock.digest(project) in LOCK, "the lock was made from other ranges"
    versions = {}
    for entry in lock.read(LOCK):
        versions.setdefault(canonicalize_name(entry.name), []).append(entry.version)
    assert len(versions) > 100
    for line in itertools.chain(*lock.ranges(project).values()):
        wanted = Requirement(line)
        name = canonicalize_name(wanted.name)
        assert name == "transfer-learning-tutorial" or all(map(wanted.specifier.contains, versions[name])), line
    *conda, rest = yaml.safe_load(ENVIRONMENT)["dependencies"]
    assert conda == [f"python={lock.CONDA_PYTHON}", "pip"]
    assert rest["pip"] == lock.environment(lock.read(LOCK), project)


def test_every_locked_file_has_a_hash_and_none_a_place_to_fetch_it_from():
    for entry in re.split(r"\n(?=[a-z0-9])", LOCK):
        assert entry.startswith("#") or "--hash=sha256:" in entry
    assert not re.search(r"https?:|://|-index|find-links|@ ", LOCK + ENVIRONMENT)


def test_binder_uses_the_same_environment():
    link = ROOT / "binder" / "environment.yml"
    assert link.is_symlink() and link.resolve() == ROOT / "environment.yml"
    assert (ROOT / "binder" / "postBuild").stat().st_mode & 0o111, "repo2docker runs it, so it is executable"


@pytest.mark.parametrize("fault", mutations.FAULTS, ids=lambda fault: fault.name)
def test_every_fault_that_mutations_tries_still_has_its_place(fault: mutations.Fault):
    source = (ROOT / "helpers" / f"{fault.module}.py").read_text(encoding="utf-8")
    assert source.count(fault.old) == 1
