"""The experiment: pretraining, then strategies by label budget by seed, one tidy row per training.

With the same label budget and seed, all strategies get the same images in the same order. They share one recipe, so
they make equally many updates in batches of one size. A seed repeats everything: the validation split, pretraining,
initial weights, the images drawn for a budget, the order of batches, dropout.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from helpers import cnn
from helpers.cnn import Architecture
from helpers.images import Dataset, Split
from helpers.messages import check_list
from helpers.provenance import provenance
from helpers.store import Facts, load_or_make
from helpers.tasks import Task, check_budget, check_seed, split_tasks, subsample
from helpers.training import Recipe, Training, predict
from helpers.transfer import (
    STRATEGIES,
    Features,
    Networks,
    Repetition,
    Row,
    SourceNetwork,
    Strategy,
    TrainedHead,
    check_frozen_convs,
    strategies_for,
)


@dataclass(frozen=True)
class Plan:
    """What is to be compared; `check` refuses a plan that cannot be carried out, before anything is trained."""

    source_classes: Sequence[int | str]
    target_classes: Sequence[int | str]
    strategies: Sequence[str] = tuple(STRATEGIES)
    labels_per_class: Sequence[int | str] = (10, 50, "all")
    seeds: Sequence[int] = (0, 1, 2)
    validation_fraction: float = 0.1
    frozen_convs: int = 2

    def check(self, dataset: Dataset) -> dict[int, tuple[Task, Task]]:
        """Return the `tasks` of each seed; raise ValueError for a budget, seed, strategy or class that cannot be."""
        for name in ("labels_per_class", "seeds"):
            values = getattr(self, name)
            check_list(name, values, "at least one entry")
            if len({str(value) for value in values}) < len(values):
                raise ValueError(f"{name}: {list(values)} holds an entry twice; give each once")
        tasks = {}
        for seed in self.seeds:
            check_seed("seeds", seed)
            tasks[seed] = _, target = self.tasks(dataset, seed)
            for budget in self.labels_per_class:
                check_budget(target.train, budget, target.classes)
        check_frozen_convs(self.frozen_convs)
        strategies, left_out = strategies_for(self.strategies, len(self.source_classes), len(self.target_classes))
        if not strategies:
            reasons = "; ".join(dict.fromkeys(left_out.values()))
            raise ValueError(f"strategies: {list(self.strategies)} leaves nothing to compare: {reasons}")
        return tasks

    def tasks(self, dataset: Dataset, seed: int) -> tuple[Task, Task]:
        """Return the source and the target task as this seed splits them, without a copy of the images."""
        classes = self.source_classes, self.target_classes
        return split_tasks(dataset, *classes, self.validation_fraction, seed, copy=False)


@dataclass(frozen=True)
class Comparison:
    """The rows of all trainings, why strategies were left out, the target task, and probabilities for its test images.

    These are `(n, classes)`, by strategy, label budget and seed.
    """

    results: pd.DataFrame
    left_out: dict[str, str]
    target: Task
    probabilities: dict[tuple[str, int | str, int], np.ndarray] = field(repr=False)


def compare(
    dataset: Dataset, plan: Plan, architecture: Architecture, recipe: Recipe, folder: Path, progress: bool = True
) -> Comparison:
    """Train every strategy at every label budget with every seed, on the target task, and test each trained network
    once.

    Pretraining runs once per seed; its row is `scratch` on the source task. What the run folder has of an earlier
    comparison is taken from there.
    `architecture.classes` is set from the plan. The largest thing in memory is one set of cached features.
    """
    tasks = plan.check(dataset)
    strategies, left_out = strategies_for(plan.strategies, len(plan.source_classes), len(plan.target_classes))
    networks = Networks(replace(architecture, classes=len(plan.target_classes)), recipe, plan.frozen_convs)
    source_networks = networks  # compiled once for both tasks
    if len(plan.source_classes) != len(plan.target_classes):
        source_networks = Networks(replace(architecture, classes=len(plan.source_classes)), recipe)
    needs_source = any(strategy.start == "pretrained" for strategy in strategies)
    trainings = len(plan.seeds) * (needs_source + len(plan.labels_per_class) * len(strategies))
    places = [*product(plan.labels_per_class, [strategy.name for strategy in strategies])]
    rows, probabilities = [], {}
    with tqdm(total=trainings, desc="trainings", disable=not progress) as bar:
        for seed, (source, target) in tasks.items():
            network = pretrain(folder, source, source_networks, seed) if needs_source else None
            if network:
                rows.append(network.row)
                bar.update()
            trained = []
            repetition = Repetition(seed, target, network)
            for row, predicted in train_strategies(networks, strategies, plan.labels_per_class, repetition, folder):
                trained.append(row)
                probabilities[row["strategy"], row["labels_per_class"], seed] = predicted
                bar.update()
            rows += sorted(trained, key=lambda row: places.index((row["labels_per_class"], row["strategy"])))
    return Comparison(pd.DataFrame(rows), left_out, target, probabilities)


def pretrain(
    folder: Path, task: Task, networks: Networks, seed: int, description: str | None = None, watch: bool = False
) -> SourceNetwork:
    """Return the network pretrained on a task: from the run folder if its provenance is the same, else trained now and
    kept there.

    `networks` train it, and lose their weights to it. `watch` asks for the learning curve on the validation split,
    which takes a while and changes nothing else. With `description`, a progress bar shows under that name.
    """

    def make(path: Path) -> Facts:
        trainer = networks.whole
        cnn.initialize(trainer.model, seed)
        training = trainer.train(task.train, seed, task.validation if watch else None, description)
        trainer.model.save_weights(path)
        row = result_row(task, "scratch", "all", seed, training, predict(trainer.model, task.test.images))
        return {"row": row, "history": training.history.to_dict("list")}

    file, facts = load_or_make(
        folder,
        "pretrained.weights.h5",
        pretraining_provenance(task, networks, seed),
        make,
        lambda facts: not watch or bool(facts["history"]["update"]),
    )
    model = cnn.build_cnn(networks.architecture)
    model.load_weights(file)
    return SourceNetwork(model, facts["row"], pd.DataFrame(facts["history"]), file.name)


def pretraining_provenance(task: Task, networks: Networks, seed: int) -> dict[str, Any]:
    """Return what a pretrained network is made from: the task's images, architecture, recipe, seed, versions, code."""
    return provenance(classes=task.classes, images=task.fingerprint, **networks.settings, seed=seed)


def train_strategies(
    networks: Networks, strategies: list[Strategy], budgets: Sequence[int | str], repetition: Repetition, folder: Path
) -> Iterator[tuple[Row, np.ndarray]]:
    """Yield each strategy's result row and test probabilities at each budget, with one seed.

    Strategies with the same frozen features share their extraction; all budgets share that of the test images.
    `head-first` goes on from the head that `frozen` trained. Each training run is kept in the run folder, and the same
    one is taken from there another time.
    """
    seed, task, source = repetition.seed, repetition.target, repetition.source
    shared = {"images": task.fingerprint, "classes": task.classes, "seed": seed, "frozen_convs": networks.frozen_convs}
    cached: tuple[Features, Features] | None = None
    tested: Features | None = None
    head: TrainedHead | None = None

    def make(path: Path, strategy: Strategy, budget: int | str, images: Split) -> Facts:
        nonlocal cached, tested, head
        needs_features = strategy.freezes or (strategy.head == "trained" and head is None)
        if needs_features and networks.caches_features and cached is None:
            cached = networks.extract(strategy, repetition, images, tested)
            tested = cached[1]
        training, probabilities = networks.train(strategy, repetition, images, cached, head)
        if strategy.name == "frozen":
            head = networks.trained_head(training)
        np.save(path, probabilities)
        return {"row": result_row(task, strategy.name, budget, seed, training, probabilities)}

    for start in ("random", "pretrained"):  # one at a time, so that only one set of features is in memory
        tested, used = None, source.file if source and start == "pretrained" else None
        for budget in budgets:
            images, cached, head = subsample(task.train, budget, seed), None, None  # gone before the next are made
            for strategy in [strategy for strategy in strategies if strategy.start == start]:
                made_from = {**shared, **networks.settings, "strategy": strategy.name, "labels_per_class": budget}
                origin = provenance(**made_from, source=used)
                train = partial(make, strategy=strategy, budget=budget, images=images)
                file, facts = load_or_make(folder, "training.npy", origin, train)
                yield facts["row"], np.load(file)


def result_row(
    task: Task, strategy: str, labels_per_class: int | str, seed: int, training: Training, probabilities: np.ndarray
) -> Row:
    """Return one tidy row for one training; its test errors are counted from the probabilities `(n, classes)`."""
    errors = int(np.sum(probabilities.argmax(axis=1) != task.test.labels))
    return {
        "task": task.name,
        "classes": (", " if isinstance(task.classes[0], str) else " ").join(map(str, task.classes)),
        "strategy": strategy,
        "labels_per_class": labels_per_class,
        "seed": seed,
        "optimizer": training.recipe.optimizer,
        "learning_rate": training.recipe.learning_rate,
        "updates": training.updates,
        "test_images": len(task.test),
        "test_errors": errors,
        "test_accuracy": 1 - errors / len(task.test),
        "train_seconds": training.seconds,
        "pretrain_seconds": training.pretrain_seconds,
        "extract_seconds": training.extract_seconds,
    }
