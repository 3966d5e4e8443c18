"""The experiment: pretraining, then every strategy at every label budget with every seed, one row per training run.

With the same label budget and seed, all strategies get the same images in the same order. They share one recipe, so
they make the same number of updates with the same batch size; only `head-first` makes 50% more updates. Each seed
changes everything random: the validation split, pretraining, initial weights, the images for a budget, the order of the
batches, and dropout.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

import joblib
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from helpers import cnn
from helpers.cnn import Architecture
from helpers.images import Dataset
from helpers.messages import check_list
from helpers.provenance import provenance
from helpers.store import Facts, find, load_or_make
from helpers.tasks import Task, check_budget, check_seed, split_tasks, subsample
from helpers.training import BENCH, Bench, Recipe, Training, predict
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

SOURCE_FILE = "pretrained.weights.h5"


@dataclass(frozen=True)
class Plan:
    """A planned comparison; `check` refuses an impossible plan before anything is trained."""

    source_classes: Sequence[int | str]
    target_classes: Sequence[int | str]
    strategies: Sequence[str] = tuple(STRATEGIES)
    labels_per_class: Sequence[int | str] = (10, 50, "all")
    seeds: Sequence[int] = (0, 1, 2)
    validation_fraction: float = 0.1
    frozen_convs: int = 2

    def check(self, dataset: Dataset) -> dict[int, tuple[Task, Task]]:
        """Return the `tasks` of each seed; raise ValueError for an impossible budget, seed, strategy or class."""
        for name in ("labels_per_class", "seeds"):
            values = getattr(self, name)
            check_list(name, values, "at least one entry")
            if len({str(value) for value in values}) < len(values):
                raise ValueError(f"{name}: {list(values)} contains an entry twice; list each entry once")
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
        """Return the source and target tasks as this seed splits them, without copying the images."""
        classes = self.source_classes, self.target_classes
        return split_tasks(dataset, *classes, self.validation_fraction, seed, copy=False)


@dataclass(frozen=True)
class Comparison:
    """The rows of all training runs, the reasons for omitted strategies, the target task, and its test probabilities.

    `probabilities` maps (strategy, label budget, seed) to an array `(n, classes)`, and `sources` maps each seed to its
    source network, if any strategy needs one.
    """

    results: pd.DataFrame
    left_out: dict[str, str]
    target: Task
    sources: dict[int, SourceNetwork]
    probabilities: dict[tuple[str, int | str, int], np.ndarray] = field(repr=False)


def compare(
    dataset: Dataset, plan: Plan, architecture: Architecture, recipe: Recipe, folder: Path, progress: bool = True
) -> Comparison:
    """Train every strategy on the target task at every label budget with every seed, and test each network once.

    Pretraining runs once per seed; its row has the strategy `scratch` and the source task. Earlier results in the run
    folder are reused. The rest is trained in parallel, one network per core with one thread each, so that the results
    do not depend on the number of cores. `architecture.classes` is set from the plan. The largest object in memory is
    one set of cached features.
    """
    tasks = plan.check(dataset)
    strategies, left_out = strategies_for(plan.strategies, len(plan.source_classes), len(plan.target_classes))
    random, pretrained = ([one for one in strategies if one.start == start] for start in ("random", "pretrained"))
    budgets, seeds = plan.labels_per_class, plan.seeds if pretrained else ()
    total = len(seeds) + len(tasks) * len(budgets) * len(strategies)
    networks = Networks(replace(architecture, classes=len(plan.target_classes)), recipe, plan.frozen_convs)
    with side_by_side(networks, folder, total, progress) as runs:
        sources = {seed: runs.pretrain(tasks[seed][0], seed) for seed in seeds}
        for seed, (_, target) in tasks.items():
            runs.train(random, budgets, Repetition(seed, target))
        for seed, job in sources.items():
            runs.finish([job])
            runs.train(pretrained, budgets, Repetition(seed, tasks[seed][1], job.made))
    rows, made = [], {seed: job.made for seed, job in sources.items()}
    for seed in tasks:
        rows += [made[seed].row] if made else []
        rows += [runs.made[one.name, budget, seed][0] for budget in budgets for one in strategies]
    tested = {run: probabilities for run, (_, probabilities) in runs.made.items()}
    return Comparison(pd.DataFrame(rows), left_out, target, made, tested)


def train_strategies(
    networks: Networks, strategies: list[Strategy], budgets: Sequence[int | str], repetition: Repetition, folder: Path
) -> list[tuple[Row, np.ndarray]]:
    """Return each strategy's result row and test probabilities at each budget, for one seed, as in `compare`."""
    with side_by_side(networks, folder, len(strategies) * len(budgets)) as runs:
        for start in ("random", "pretrained"):
            runs.train([one for one in strategies if one.start == start], budgets, repetition)
    return [runs.made[one.name, budget, repetition.seed] for budget in budgets for one in strategies]


def pretrain_by_seed(folder: Path, tasks: Mapping[int, Task], networks: Networks) -> dict[int, SourceNetwork]:
    """Pretrain a network on each seed's task, in parallel as in `compare`; return the networks by seed."""
    with side_by_side(networks, folder, len(tasks)) as runs:
        jobs = {seed: runs.pretrain(task, seed) for seed, task in tasks.items()}
    return {seed: job.made for seed, job in jobs.items()}


def pretrain(
    folder: Path, task: Task, networks: Networks, seed: int, description: str | None = None, watch: bool = False
) -> SourceNetwork:
    """Return the network pretrained on a task: from the run folder if its provenance matches, otherwise trained now and
    saved there.

    Training uses `networks` and overwrites their weights. `watch` also records the learning curve on the validation
    split, but changes nothing else; it takes a while. With `description`, a progress bar appears under that name.
    """
    model, origin = cnn.build_cnn(networks.architecture), pretraining_provenance(task, networks, seed)

    def make(path: Path) -> Facts:
        trainer = networks.whole
        cnn.initialize(trainer.model, seed)
        training = trainer.train(task.train, seed, task.validation if watch else None, description)
        model.set_weights(trainer.model.get_weights())
        model.save_weights(path)
        row = result_row(task, "scratch", "all", seed, training, predict(trainer.model, task.test.images))
        return {"row": row, "history": training.history.to_dict("list")}

    file, facts = load_or_make(
        folder, SOURCE_FILE, origin, make, lambda facts: not watch or bool(facts["history"]["update"])
    )
    model.load_weights(file)
    return SourceNetwork(model, facts["row"], pd.DataFrame(facts["history"]), file.name)


def pretraining_provenance(task: Task, networks: Networks, seed: int) -> dict[str, Any]:
    """Return a pretrained network's provenance: the task's images, architecture, recipe, seed, versions and code."""
    return provenance(classes=task.classes, images=task.fingerprint, **networks.settings, seed=seed)


@dataclass(eq=False)
class Job:
    """Work that a worker does with its own networks: so many `training_runs`; afterwards, `made` is the result."""

    work: Callable[[Networks], Any]
    training_runs: int = 1
    made: Any = None


@dataclass
class _Runs:
    """Training runs on all cores: each worker is a thread that trains with its own networks, and saves what it trained.

    `made` contains result rows and test probabilities by strategy, budget and seed, whether new or from the run folder.
    """

    networks: Networks
    folder: Path
    pool: Executor
    bar: tqdm
    idle: list[Networks]
    waiting: list[Job] = field(default_factory=list)
    running: dict[Future[Any], tuple[Job, Networks]] = field(default_factory=dict)
    made: dict[tuple[str, int | str, int], tuple[Row, np.ndarray]] = field(default_factory=dict)

    def do(self, *jobs: Job) -> list[Any]:
        """Add jobs to the queue, finish them, and return their results."""
        self.waiting += jobs
        self.finish(jobs)
        return [job.made for job in jobs]

    def finish(self, jobs: Sequence[Job]) -> None:
        """Finish these jobs first; other waiting jobs run on any free cores."""
        self.waiting.sort(key=lambda job: job not in jobs)
        while any(job in jobs for job in (*self.waiting, *(job for job, _ in self.running.values()))):
            while self.idle and self.waiting:
                job, networks = self.waiting.pop(0), self.idle.pop()
                self.running[self.pool.submit(job.work, networks)] = job, networks
            ended, _ = wait(self.running, return_when=FIRST_COMPLETED)
            for future in ended:
                job, networks = self.running.pop(future)
                self.idle.append(networks)
                job.made = future.result()
                self.bar.update(job.training_runs)

    def pretrain(self, task: Task, seed: int) -> Job:
        """Return the job that trains a source network, or only loads it if the run folder contains it."""
        job = Job(lambda networks: pretrain(self.folder, task, networks.sized(len(task.classes)), seed))
        self.waiting.append(job)
        return job

    def train(self, strategies: list[Strategy], budgets: Sequence[int | str], repetition: Repetition) -> None:
        """Train strategies that share a start: first the ones on cached features, because only one set of features
        fits into memory; then the others, as cores become free.
        """
        test = None  # the test images' features, which all budgets share
        for budget in reversed(budgets):  # the longest runs first, so that all cores finish at about the same time
            missing = [one for one in strategies if not self._take(one, budget, repetition)]
            self.bar.update(len(strategies) - len(missing))
            test = self._train(missing, budget, repetition, test)

    def _train(
        self, strategies: list[Strategy], budget: int | str, repetition: Repetition, test: Features | None
    ) -> Features | None:
        """Train strategies at a budget; `head-first` continues from the head of `frozen`, or else trains its own."""
        task, cached = repetition.target, None
        heads = [one for one in strategies if one.freezes or one.head == "trained"]
        later = [one for one in heads if one.head == "trained" and STRATEGIES["frozen"] in heads]
        first = [one for one in heads if one not in later]
        self.waiting += [self._job(one, budget, repetition) for one in strategies if one not in heads]
        if first and self.networks.caches_features:
            images = subsample(task.train, budget, repetition.seed)
            job = Job(lambda networks: networks.extract(first[0], repetition, images, test), training_runs=0)
            (cached,) = self.do(job)
            test = cached[1]
        made = self.do(*(self._job(one, budget, repetition, cached) for one in first))
        for one in later:
            head = made[first.index(STRATEGIES["frozen"])]
            self.waiting.append(self._job(one, budget, repetition, head=head))
        return test

    def _job(
        self,
        strategy: Strategy,
        budget: int | str,
        repetition: Repetition,
        cached: tuple[Features, Features] | None = None,
        head: TrainedHead | None = None,
    ) -> Job:
        """Return the job of one training run; its result is the trained head if `head-first` can continue from it."""
        task, seed = repetition.target, repetition.seed

        def work(networks: Networks) -> TrainedHead | None:
            images = subsample(task.train, budget, seed)
            training, probabilities = networks.train(strategy, repetition, images, cached, head)

            def make(path: Path) -> Facts:
                np.save(path, probabilities)
                return {"row": result_row(task, strategy.name, budget, seed, training, probabilities)}

            self._take(strategy, budget, repetition, make)
            return networks.trained_head(training) if strategy.name == "frozen" else None

        return Job(work)

    def _take(
        self,
        strategy: Strategy,
        budget: int | str,
        repetition: Repetition,
        make: Callable[[Path], Facts] | None = None,
    ) -> bool:
        """Take a training run from the run folder, after `make` (if given) has put it there; tell whether it exists."""
        task, source = repetition.target, repetition.source if strategy.start == "pretrained" else None
        made_from = {"images": task.fingerprint, "classes": task.classes, "seed": repetition.seed}
        made_from |= {"strategy": strategy.name, "labels_per_class": budget, "source": source and source.file}
        origin = provenance(**made_from, **self.networks.settings, frozen_convs=self.networks.frozen_convs)
        known = self.folder, "training.npy", origin
        kept = load_or_make(*known, make) if make else find(*known)
        if kept:
            self.made[strategy.name, budget, repetition.seed] = kept[1]["row"], np.load(kept[0])
        return kept is not None


@contextmanager
def side_by_side(networks: Networks, folder: Path, training_runs: int, progress: bool = False) -> Iterator[_Runs]:
    """Yield training runs, made in parallel with these networks and copies of them; finish all when the block ends.

    With `progress`, a bar counts the training runs. If one job fails, or the user interrupts, the others stop before
    their next call to a compiled function.
    """
    from helpers.backend import one_thread

    one_thread()
    at_once, stop = min(joblib.cpu_count(), training_runs), Event()
    pool = ThreadPoolExecutor(at_once, initializer=BENCH.set, initargs=(Bench(at_once, stop),))
    with tqdm(total=training_runs, desc="training runs", disable=not progress) as bar, pool:
        try:
            others = (
                Networks(networks.architecture, networks.recipe, networks.frozen_convs) for _ in range(1, at_once)
            )
            runs = _Runs(networks, folder, pool, bar, [networks, *others])
            yield runs
            runs.finish([*runs.waiting, *(job for job, _ in runs.running.values())])
        finally:
            stop.set()


def result_row(
    task: Task, strategy: str, labels_per_class: int | str, seed: int, training: Training, probabilities: np.ndarray
) -> Row:
    """Return one tidy row for one training run; its test errors are counted from the probabilities `(n, classes)`."""
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
        "threads": training.threads,
        "at_once": training.at_once,
    }
