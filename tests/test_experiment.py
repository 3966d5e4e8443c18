"""The experiment: fair and repeatable training runs, with one row each."""

import gc
import math
import threading
import time
import weakref
from dataclasses import replace
from itertools import product
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from refusals import refused
from small import ADAM, SMALL

from helpers import experiment
from helpers.experiment import Comparison, Plan
from helpers.images import Dataset
from helpers.tasks import Task
from helpers.training import Recipe, Training
from helpers.transfer import Features, Networks, Strategy

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # from Keras, about NumPy
PLAN = Plan([5, 6, 7, 8, 9], [0, 1, 2, 3, 4], labels_per_class=[5, "all"], seeds=[0, 1])
SIX = ["scratch", "frozen", "head-first", "fine-tuned", "random-frozen", "reused-head"]


@pytest.fixture(scope="module")
def compared(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Compare all strategies on the digits, in a few seconds."""
    return experiment.compare(digits, PLAN, SMALL, ADAM, tmp_path_factory.mktemp("runs"), progress=False)


# Training runs


def test_there_is_one_row_for_each_training(compared: Comparison):
    target = compared.results[compared.results["task"] == "target"]
    trained = list(zip(target["seed"], target["labels_per_class"], target["strategy"], strict=True))
    assert len(trained) == 24
    assert set(trained) == set(product([0, 1], [5, "all"], SIX))
    assert compared.left_out == {}


def test_no_row_lacks_a_value(compared: Comparison):
    assert not compared.results.isna().any().any()
    assert compared.results.columns.tolist() == [
        *("task", "classes", "strategy", "labels_per_class", "seed", "optimizer", "learning_rate", "updates"),
        *("test_images", "test_errors", "test_accuracy", "train_seconds", "pretrain_seconds", "extract_seconds"),
        *("threads", "at_once"),
    ]
    assert (compared.results["train_seconds"] > 0).all()


def test_strategies_make_equally_many_updates_and_head_first_half_as_many_again(
    compared: Comparison, tasks: tuple[Task, Task]
):
    target = compared.results[compared.results["task"] == "target"]
    epoch = math.ceil(len(tasks[1].train) / 32)
    for budget, once in ((5, 20), ("all", epoch)):
        updates = target[target["labels_per_class"] == budget].groupby("strategy")["updates"].unique().to_dict()
        assert updates.pop("head-first") == once + math.ceil(once / 2)
        assert all(counts == [once] for counts in updates.values())


def test_errors_are_those_of_the_probabilities_on_the_test_split(compared: Comparison):
    target = compared.results[compared.results["task"] == "target"]
    assert len(compared.probabilities) == len(target)
    for _, row in target.iterrows():
        probabilities = compared.probabilities[row["strategy"], row["labels_per_class"], row["seed"]]
        assert row["test_errors"] == (probabilities.argmax(axis=1) != compared.target.test.labels).sum()
        assert row["test_accuracy"] == pytest.approx(1 - row["test_errors"] / len(compared.target.test))


def test_only_those_who_use_pretraining_or_extraction_pay_for_it(compared: Comparison):
    source, target = (compared.results[compared.results["task"] == task] for task in ("source", "target"))
    assert not source[["pretrain_seconds", "extract_seconds"]].any().any()
    paid = dict(zip(source["seed"], source["train_seconds"], strict=True))
    for _, row in target.iterrows():
        pretrained = row["strategy"] in ("frozen", "head-first", "fine-tuned", "reused-head")
        assert row["pretrain_seconds"] == (paid[row["seed"]] if pretrained else 0)
        assert (row["extract_seconds"] > 0) == (row["strategy"] not in ("scratch", "fine-tuned"))


def test_what_was_trained_before_is_not_trained_again(digits: Dataset, run_folder: Path, monkeypatch):
    trained, train = [], Networks.train

    def watched(networks, strategy, *arguments):
        trained.append(strategy.name)
        return train(networks, strategy, *arguments)

    def compare(recipe: Recipe = ADAM, **changed: object) -> Comparison:
        return experiment.compare(digits, replace(plan, **changed), SMALL, recipe, run_folder, progress=False)

    monkeypatch.setattr(Networks, "train", watched)
    plan = replace(PLAN, seeds=[1], labels_per_class=[5], strategies=["scratch", "frozen"])
    first = compare()
    again = compare(strategies=["scratch", "frozen", "random-frozen"])
    assert trained == ["scratch", "frozen", "random-frozen"]
    kept = again.results[again.results["strategy"] != "random-frozen"].sort_values("strategy")
    pd.testing.assert_frame_equal(kept.reset_index(drop=True), first.results.sort_values("strategy", ignore_index=True))
    for key, probabilities in first.probabilities.items():
        np.testing.assert_array_equal(again.probabilities[key], probabilities)
    compare(replace(ADAM, learning_rate=0.02))
    compare(seeds=[2])
    assert len(trained) == 7  # a different recipe or seed makes a different training run


def test_the_same_again_gives_the_same_errors_whatever_else_is_compared(
    compared: Comparison, digits: Dataset, run_folder: Path
):
    plan = replace(PLAN, seeds=[1], labels_per_class=[5])
    again = experiment.compare(digits, plan, SMALL, ADAM, run_folder, progress=False)
    for key, probabilities in again.probabilities.items():
        assert np.array_equal(probabilities, compared.probabilities[key])
    of = ["task", "strategy", "labels_per_class", "seed", "test_errors"]
    assert len(again.results.merge(compared.results, on=of)) == len(again.results)


def test_class_sets_of_other_sizes_leave_the_reused_head_out_with_a_reason(digits: Dataset, run_folder: Path):
    plan = Plan([0, 1, 2, 3, 4, 5, 6], [7, 8, 9], ["frozen", "reused-head"], labels_per_class=["all"], seeds=[0])
    longer = replace(ADAM, min_updates=200)
    result = experiment.compare(digits, plan, SMALL, longer, run_folder, progress=False)
    rows = result.results.set_index("strategy")
    assert rows["classes"].to_dict() == {"scratch": "0 1 2 3 4 5 6", "frozen": "7 8 9"}
    assert "7 outputs and the target task 3 classes" in result.left_out["reused-head"]
    assert result.probabilities["frozen", "all", 0].shape == (len(result.target.test), 3)
    assert rows.loc["frozen", "test_accuracy"] > 0.6  # chance level is 0.33


# Side by side


def cores(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(joblib, "cpu_count", lambda: count)


@pytest.mark.parametrize("count", [1, 3])
def test_results_are_the_same_on_any_number_of_cores(compared, digits, run_folder: Path, monkeypatch, count: int):
    cores(monkeypatch, count)
    again = experiment.compare(digits, PLAN, SMALL, ADAM, run_folder, progress=False)
    assert set(again.results["at_once"]) == {count}
    measured = ["train_seconds", "pretrain_seconds", "extract_seconds", "at_once"]
    pd.testing.assert_frame_equal(again.results.drop(columns=measured), compared.results.drop(columns=measured))
    for key, probabilities in again.probabilities.items():
        assert np.array_equal(probabilities, compared.probabilities[key])


def test_a_process_that_compares_gives_each_network_one_thread_and_a_sweeps_worker_its_share_of_the_cores(python):
    code = """if True:
        import sys, tempfile
        from pathlib import Path
        sys.path.insert(0, "tests")
        from small import ADAM, SMALL
        from helpers.datasets import load_dataset
        from helpers.experiment import Plan, compare
        plan = Plan([5, 6], [0, 1], ["scratch", "frozen"], [5], [0])
        with tempfile.TemporaryDirectory() as folder:
            rows = compare(load_dataset("digits"), plan, SMALL, ADAM, Path(folder), progress=False).results
        print(rows[["threads", "at_once"]].drop_duplicates().to_numpy())"""
    ran = python(code, TF_NUM_INTRAOP_THREADS="2", LOKY_MAX_CPU_COUNT="1")
    assert ran.stdout == "[[1 1]]\n", ran.stderr


def test_one_set_of_features_at_a_time_is_in_memory_and_all_budgets_share_the_test_images(
    digits, run_folder: Path, monkeypatch
):
    extract, train, test = Networks.extract, [], []

    def watched(networks: Networks, *arguments: object) -> tuple[Features, Features]:
        gc.collect()
        assert not any(features() for features in train)
        made = extract(networks, *arguments)
        train.append(weakref.ref(made[0]))
        test.append(made[1])
        return made

    monkeypatch.setattr(Networks, "extract", watched)
    cores(monkeypatch, 3)
    experiment.compare(digits, replace(PLAN, seeds=[0]), SMALL, ADAM, run_folder, progress=False)
    assert len(train) == 4  # of label budgets, and random or pretrained features
    assert len({id(features) for features in test}) == 2


@pytest.mark.parametrize("stops", [MemoryError("no memory for random-frozen"), KeyboardInterrupt()], ids=repr)
def test_a_run_that_fails_and_ctrl_c_stop_the_runs_beside_it(digits, run_folder: Path, monkeypatch, stops):
    train, wait, began, threads = Networks.train, experiment.wait, time.monotonic(), threading.active_count()

    def failing(networks: Networks, strategy: Strategy, *arguments: object) -> tuple[Training, np.ndarray]:
        if strategy.name == "random-frozen" and isinstance(stops, MemoryError):
            raise stops
        return train(networks, strategy, *arguments)

    def interrupted(running: dict, return_when: str) -> object:
        ended = wait(running, timeout=2, return_when=return_when)
        if not ended.done and isinstance(stops, KeyboardInterrupt):
            raise stops
        return ended

    monkeypatch.setattr(Networks, "train", failing)
    monkeypatch.setattr(experiment, "wait", interrupted)
    cores(monkeypatch, 2)
    plan, hours = replace(PLAN, strategies=["scratch", "random-frozen"]), replace(ADAM, min_updates=10**6)
    with pytest.raises(type(stops)) as raised:
        experiment.compare(digits, plan, SMALL, hours, run_folder, progress=False)
    assert raised.value is stops
    assert threading.active_count() == threads
    assert time.monotonic() - began < 60


def test_what_was_done_before_a_run_failed_is_kept(digits, run_folder: Path, monkeypatch):
    train, trained = Networks.train, []

    def failing(networks: Networks, strategy: Strategy, *arguments: object) -> tuple[Training, np.ndarray]:
        if strategy.name == "frozen" and "frozen" not in trained:
            trained.append("frozen")
            raise MemoryError
        trained.append(strategy.name)
        return train(networks, strategy, *arguments)

    monkeypatch.setattr(Networks, "train", failing)
    cores(monkeypatch, 2)
    plan = replace(PLAN, seeds=[0], labels_per_class=[5], strategies=["random-frozen", "frozen"])
    with pytest.raises(MemoryError):
        experiment.compare(digits, plan, SMALL, ADAM, run_folder, progress=False)
    experiment.compare(digits, plan, SMALL, ADAM, run_folder, progress=False)
    assert trained == ["random-frozen", "frozen", "frozen"]


# Bad plans


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"labels_per_class": []}, "labels_per_class: [] ... at least one entry"),
        ({"seeds": "[0, 1]"}, """seeds: '[0, 1]' ... use -y "seeds: [0, 1]", not -p"""),
        ({"labels_per_class": [5, 1000]}, "labels_per_class: 1000 ... class 0 ... at most"),
        ({"seeds": [1, 1]}, "seeds: [1, 1] ... twice"),
        ({"strategies": ["scratch", "froze"]}, "strategies: 'froze' ... scratch, frozen"),
        ({"source_classes": [5, 6, 0]}, "source_classes and target_classes ... 0 "),
        ({"target_classes": [0, 1], "strategies": ["reused-head"]}, "strategies: ... reused-head ... cannot be reused"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_plan_that_cannot_be_carried_out_is_refused_before_training(digits, run_folder: Path, changed, says):
    with refused(*says.split(" ... ")):
        experiment.compare(digits, replace(PLAN, **changed), SMALL, ADAM, run_folder, progress=False)
    assert not run_folder.exists()
