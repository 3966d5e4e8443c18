"""The experiment: strategies by label budget by seed, one tidy row per training.

With the same label budget and seed, all strategies get the same images in the same order. They share one recipe, so
they make equally many updates in batches of one size. A seed repeats everything: the validation split, pretraining,
initial weights, the images drawn for a budget, the order of batches, dropout.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from helpers.artefacts import load, provenance, save
from helpers.cnn import Architecture
from helpers.images import Dataset
from helpers.tasks import Task, check_budget, check_seed, split_tasks, subsample
from helpers.training import Recipe
from helpers.transfer import (
    STRATEGIES,
    Networks,
    Pretrained,
    Row,
    Strategy,
    check_frozen_convs,
    pretrained,
    result_row,
    strategies_for,
)


@dataclass(frozen=True)
class Plan:
    """What is to be compared; `check` refuses a plan that cannot be carried out, before anything is trained."""

    source_classes: Sequence[int]
    target_classes: Sequence[int]
    strategies: Sequence[str] = tuple(STRATEGIES)
    labels_per_class: Sequence[int | str] = (10, 50, "all")
    seeds: Sequence[int] = (0, 1, 2)
    validation_fraction: float = 0.1
    frozen_convs: int = 2

    def check(self, dataset: Dataset) -> dict[int, tuple[Task, Task]]:
        """Return the `tasks` of each seed; raise ValueError for a budget, seed, strategy or class that cannot be."""
        for name in ("labels_per_class", "seeds"):
            values = getattr(self, name)
            if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                raise ValueError(f"{name}: {values!r} is not a list with at least one entry")
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
            raise ValueError(f"strategies: {list(self.strategies)} leaves nothing to compare: {left_out}")
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
    source_cnn = replace(architecture, classes=len(plan.source_classes))
    target_cnn = replace(architecture, classes=len(plan.target_classes))
    networks = Networks(target_cnn, recipe, plan.frozen_convs)
    lent = networks if source_cnn == target_cnn else Networks(source_cnn, recipe)
    needs_source = any(strategy.start == "pretrained" for strategy in strategies)
    trainings = len(plan.seeds) * (needs_source + len(plan.labels_per_class) * len(strategies))
    rows, probabilities = [], {}
    with tqdm(total=trainings, desc="trainings", disable=not progress) as bar:
        for seed, (source, target) in tasks.items():
            network = pretrained(folder, source, source_cnn, recipe, seed, lent) if needs_source else None
            if network:
                rows.append(network.row)
                bar.update()
            trained = []
            for row, predicted in with_seed(networks, strategies, plan.labels_per_class, target, seed, network, folder):
                trained.append(row)
                probabilities[row["strategy"], row["labels_per_class"], seed] = predicted
                bar.update()
            places = [*product(plan.labels_per_class, [strategy.name for strategy in strategies])]
            rows += sorted(trained, key=lambda row: places.index((row["labels_per_class"], row["strategy"])))
    return Comparison(pd.DataFrame(rows), left_out, target, probabilities)


def with_seed(
    networks: Networks,
    strategies: list[Strategy],
    budgets: Sequence[int | str],
    task: Task,
    seed: int,
    source: Pretrained | None,
    folder: Path,
) -> Iterator[tuple[Row, np.ndarray]]:
    """Yield each strategy's result row and test probabilities at each budget.

    Strategies with the same frozen features share their extraction; all budgets share that of the test images. Each
    training is kept in the run folder, and the same one is taken from there another time.
    """
    shared = {"images": task.fingerprint, "classes": task.classes, "seed": seed, "frozen_convs": networks.frozen_convs}
    shared |= {"architecture": asdict(networks.architecture), "recipe": asdict(networks.recipe)}
    for kind in ("random", "pretrained"):  # one kind at a time, so that only one set of features is in memory
        alike = [strategy for strategy in strategies if strategy.start == kind]
        cached = test = None
        for budget in budgets:
            images, cached = subsample(task.train, budget, seed), None  # the last set is gone before the next is made
            for strategy in alike:
                used = source.file if source and kind == "pretrained" else None
                origin = provenance(**shared, strategy=strategy.name, labels_per_class=budget, source=used)
                if kept := load(folder, "training", origin):
                    yield kept[1]["row"], np.load(kept[0])
                    continue
                if strategy.freezes and networks.caches_features and cached is None:
                    cached = networks.extract(strategy, task, images, seed, source, test)
                    test = cached[1]
                training, predicted = networks.train(strategy, task, images, seed, source, cached)
                row = result_row(task, strategy.name, budget, seed, networks.recipe, training, predicted)
                save(folder, "training", origin, ".npy", partial(np.save, arr=predicted), row=row)
                yield row, predicted
