"""Ask whether the course's verdict holds: with more seeds, tuning, other classes, other data, and controls.

    MNIST_NPZ=.../mnist.npz python tools/study.py [--photos FOLDER] [--jobs 2] [--check]

It trains about a thousand networks, each on one core, in some hours, and writes what came of it to docs/study/:
trainings.csv, one row per training, and intervals.csv, from which docs/does_it_hold.ipynb computes findings, tables and
figures. Each training is kept in the run folder: the same command resumes where it was stopped. `--check` repeats every
tenth job in an empty folder and compares its rows with those that are stored.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.contrib.concurrent import process_map

from helpers import cnn
from helpers.backbones import Head, extractor, mobilenet, weights_facts, weights_file
from helpers.cnn import Architecture
from helpers.datasets import load_dataset
from helpers.experiment import Plan, pretrain, train_strategies
from helpers.images import Split
from helpers.messages import listed
from helpers.provenance import provenance
from helpers.statistics import interval
from helpers.store import Facts, load_or_make
from helpers.tasks import Task
from helpers.training import RECIPES, Recipe
from helpers.transfer import STRATEGIES, Networks, Repetition, Row, SourceNetwork, extract_features, named_strategies

STORED = Path(__file__).resolve().parents[1] / "docs" / "study"
FAST, DIGITS = RECIPES["fast"], tuple(range(10))
LOW, HIGH, EVEN, ODD = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (0, 2, 4, 6, 8), (1, 3, 5, 7, 9)
VEHICLES = ("airplane", "automobile", "ship", "truck")
ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")
BUDGETS, DEFAULT, FEW = (5, 10, 20, 50, 100, 200, 500, "all"), (10, 50, "all"), (10, 50)  # DEFAULT is lesson 05's
CONTROLS = ("shuffled kernels", "shuffled labels", "shuffled labels, a tenth of the rate")
RATES, LENGTHS = (0.0015, 0.005, 0.015), (1, 2)  # of the fast recipe: its rate and others, times its updates
BLOCK, ENLARGED = 6, 64  # where MobileNet is cut, and the side to which it gets digits enlarged, as in lesson 06
RESAMPLES, ENDS = 5000, (("low", 2.5), ("high", 97.5))
KEYS = ["question", "dataset", "source", "target", "control", "judged_on", "learning_rate", "length"]
KEYS += ["task", "strategy", "labels_per_class", "seed"]


@dataclass(frozen=True)
class Job:
    """One setting with one seed: a plan, and in what it departs from lesson 05."""

    question: str
    seed: int
    source: Sequence[int | str] = HIGH
    target: Sequence[int | str] = LOW
    strategies: Sequence[str] = ("scratch", "frozen", "random-frozen")
    budgets: Sequence[int | str] = FEW
    dataset: str = "mnist"
    control: str = ""
    learning_rate: float = FAST.learning_rate
    length: int = 1
    judged_on: str = "test"

    @property
    def recipe(self) -> Recipe:
        """The fast recipe with this learning rate, and `length` times its epochs and updates."""
        longer = {"epochs": self.length * FAST.epochs, "min_updates": self.length * FAST.min_updates}
        return replace(FAST, learning_rate=self.learning_rate, **longer)

    @property
    def pretraining(self) -> Recipe:
        """The recipe of pretraining: the fast one, gentler where the control asks for it."""
        gentle = self.control.endswith("a tenth of the rate")
        return replace(FAST, learning_rate=FAST.learning_rate / 10) if gentle else FAST

    def tasks(self) -> tuple[Task, Task]:
        """Return source and target task, the labels to pretrain on shuffled where that is the control."""
        plan = Plan(self.source, self.target, self.strategies, self.budgets, [self.seed])
        source, target = plan.check(load_dataset(self.dataset))[self.seed]
        if self.control.startswith("shuffled labels"):
            labels = np.random.default_rng(self.seed).permutation(source.train.labels)
            source = replace(source, train=Split(source.train.images, labels))
        return source, replace(target, test=target.validation) if self.judged_on == "validation" else target


def jobs(photos: str | None) -> list[Job]:
    """Return what is to be trained, but for what tuning chooses."""
    rng = np.random.default_rng(0)
    halves = [tuple(sorted(map(int, rng.permutation(10)[:5]))) for _ in range(6)]
    tasks = [(LOW, HIGH), (ODD, EVEN), (EVEN, ODD)] + [(half, tuple(sorted({*DIGITS} - {*half}))) for half in halves]
    found = [Job("seeds", seed, strategies=tuple(STRATEGIES), budgets=BUDGETS) for seed in range(10)]
    found += [Job("backbone", seed, budgets=BUDGETS) for seed in range(10)]
    found += [
        Job("controls", seed, strategies=("frozen", "fine-tuned"), budgets=DEFAULT, control=control)
        for control, seed in product(CONTROLS, range(10))
    ]
    found += [Job("tasks", seed, source, target) for (source, target), seed in product(tasks, range(3))]
    if photos:
        found += [Job("tasks", seed, VEHICLES, ANIMALS, dataset=photos) for seed in range(3)]
    found += [
        Job(
            "tuning",
            seed,
            strategies=tuple(STRATEGIES),
            budgets=DEFAULT,
            learning_rate=rate,
            length=length,
            judged_on="validation",
        )
        for rate, length, seed in product(RATES, LENGTHS, range(5))
    ]
    return found


def chosen(rows: pd.DataFrame) -> list[Job]:
    """Return one job per strategy, label budget and seed: with the setting that has the fewest validation errors.

    Of settings with equally many, the one nearest to the recipe is taken.
    """
    tuning = rows[(rows["question"] == "tuning") & (rows["task"] == "target")]
    order = tuning.assign(far=(tuning["learning_rate"] - FAST.learning_rate).abs() + tuning["length"])
    best = order.sort_values(["errors", "far"], kind="stable").groupby(["strategy", "labels_per_class", "seed"]).head(1)
    best = best.sort_values(["strategy", "labels_per_class", "seed"])
    budgets = {str(budget): budget for budget in BUDGETS}
    return [
        Job(
            "tuned",
            row.seed,
            strategies=(row.strategy,),
            budgets=(budgets[str(row.labels_per_class)],),
            learning_rate=row.learning_rate,
            length=row.length,
        )
        for row in best.itertuples()
    ]


def train(job: Job, folder: Path) -> tuple[pd.DataFrame, dict[tuple[str, str], np.ndarray]]:
    """Train one job; return its rows, and which test images were answered wrong, by strategy and label budget."""
    if job.question == "backbone":
        return on_backbone(job, folder), {}
    source, target = job.tasks()
    shape = target.image_shape
    architecture, own = Architecture(shape, len(target.classes)), Architecture(shape, len(source.classes))
    base = pretrain(folder, source, Networks(own, job.pretraining), job.seed)
    rows, wrong = [] if job.question in ("tuning", "tuned") else [base.row], {}
    if job.control == "shuffled kernels":
        base = shuffled(base, job.seed)
    networks, strategies = Networks(architecture, job.recipe), named_strategies(job.strategies)
    repetition = Repetition(job.seed, target, base)
    for row, scores in train_strategies(networks, strategies, job.budgets, repetition, folder):
        rows.append(row)
        wrong[row["strategy"], str(row["labels_per_class"])] = scores.argmax(axis=1) != target.test.labels
    return tidy(job, rows), wrong


def shuffled(base: SourceNetwork, seed: int) -> SourceNetwork:
    """Return a pretrained network with the weights of each kernel in another order, its bias as it was.

    So each kernel, `(height, width, channels)`, keeps its mean and its standard deviation, and loses its shape.
    """
    rng = np.random.default_rng(seed)
    for name in cnn.CONVOLUTIONS:
        layer = base.model.get_layer(name)
        kernels, bias = layer.get_weights()
        order = rng.permuted(np.arange(kernels[..., 0].size)[:, None].repeat(kernels.shape[-1], 1), axis=0)
        mixed = np.take_along_axis(kernels.reshape(-1, kernels.shape[-1]), order, axis=0)
        layer.set_weights([mixed.reshape(kernels.shape), bias])
    return replace(base, file=f"{base.file}, kernels shuffled by seed {seed}")


def on_backbone(job: Job, folder: Path) -> pd.DataFrame:
    """Return the rows of heads on MobileNet's features of enlarged digits, kept in the run folder too."""

    def make(path: Path) -> Facts:
        _, target = job.tasks()
        cut = extractor(mobilenet(ENLARGED, weights=weights_file()), target.image_shape, BLOCK)
        train, test = (extract_features(cut, split, "float32") for split in (target.train, target.test))
        head = Head(cut.output_shape[1:], Architecture(target.image_shape, len(target.classes)), job.recipe)
        rows = [head.row(target, "backbone", budget, job.seed, train, test)[0] for budget in job.budgets]
        tidy(job, rows).to_csv(path, index=False)
        return {}

    origin = provenance(job=vars(job), block=BLOCK, size=ENLARGED, **weights_facts(0.25, "imagenet"))
    path, _ = load_or_make(folder, "rows.csv", origin, make)
    return pd.read_csv(path, keep_default_na=False)


def tidy(job: Job, rows: Sequence[Row]) -> pd.DataFrame:
    """Return result rows with the job's setting in their first columns, without what a clock measured."""
    setting = {name: getattr(job, name) for name in ("question", "dataset", "control", "judged_on", "length")}
    setting |= {"source": listed(job.source), "target": listed(job.target)}
    table = pd.DataFrame(rows).rename(columns={"test_images": "images", "test_errors": "errors"}).assign(**setting)
    table["dataset"] = Path(job.dataset).name
    return table[[*KEYS, "updates", "images", "errors"]].astype({"labels_per_class": str})


def image_intervals(wrong: Sequence[dict[tuple[str, str], np.ndarray]]) -> pd.DataFrame:
    """Return 95 % intervals of each difference to `scratch`, in points: by t over seeds, and by bootstrap.

    `wrong` has one entry per seed: by strategy and label budget, which test images were answered wrong. The bootstrap
    draws seeds, or seeds and images, with replacement, the same for both strategies, and takes percentiles.
    """
    rng, seeds = np.random.default_rng(0), len(wrong)
    images = len(next(iter(wrong[0].values())))
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds
    of_images = rng.multinomial(images, np.full(images, 1 / images), RESAMPLES) / images
    rows = []
    for budget, strategy in product(map(str, BUDGETS), STRATEGIES):
        if strategy == "scratch" or (strategy, budget) not in wrong[0]:
            continue
        fewer = 100.0 * np.stack([1.0 * each["scratch", budget] - each[strategy, budget] for each in wrong])
        by_seed = fewer.mean(axis=1)
        mean, low, high = interval(by_seed)
        drawn = {"seeds": of_seeds @ by_seed, "both": np.einsum("rs,rs->r", of_seeds, of_images @ fewer.T)}
        ends = {f"{what}_{end}": np.percentile(values, share) for what, values in drawn.items() for end, share in ENDS}
        rows.append((strategy, budget, mean, low, high, *ends.values()))
    names = ["strategy", "labels_per_class", "difference", "t_low", "t_high"]
    return pd.DataFrame(rows, columns=[*names, "seeds_low", "seeds_high", "both_low", "both_high"]).round(4)


def train_all(todo: Sequence[Job], folder: Path, workers: int) -> list[tuple[pd.DataFrame, dict]]:
    """Train jobs, some at a time, each in a process of one thread; return what `train` does, in their order."""
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return process_map(partial(train, folder=folder), todo, max_workers=workers, chunksize=1, unit="job")


def stored() -> pd.DataFrame:
    """Return the rows of docs/study/trainings.csv."""
    return pd.read_csv(STORED / "trainings.csv", keep_default_na=False)


def check(photos: str | None, workers: int) -> None:
    """Repeat every tenth job in an empty folder; say how many rows are equal to the stored ones."""
    rows = stored()
    todo = [*jobs(photos), *chosen(rows)][::10]
    with tempfile.TemporaryDirectory() as folder:
        again = pd.concat([table for table, _ in train_all(todo, Path(folder), workers)])
    both = again.drop_duplicates(KEYS).merge(rows, on=KEYS, how="left", suffixes=("", "_stored"))
    differing = both[both["errors"] != both["errors_stored"]]
    print(f"{len(todo)} jobs repeated: {len(both) - len(differing)} of {len(both)} rows are equal")
    if len(differing):
        raise SystemExit(differing[[*KEYS, "errors", "errors_stored"]].to_string(index=False))


def main() -> None:
    """Train what is not there yet, and store the rows; or check those that are stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", help="CIFAR-10 as a folder of train/ and test/ with a folder per class")
    parser.add_argument("--folder", type=Path, default="runs/study", help="run folder (default: runs/study)")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default: 2)")
    parser.add_argument("--check", action="store_true", help="repeat a tenth, compare with the stored rows")
    options = parser.parse_args()
    if options.check:
        check(options.photos, options.jobs)
        return
    todo = jobs(options.photos)
    done = train_all(todo, options.folder, options.jobs)
    rows = pd.concat([table for table, _ in done])
    tuned = [table for table, _ in train_all(chosen(rows), options.folder, options.jobs)]
    rows = pd.concat([rows, *tuned]).drop_duplicates(KEYS)
    STORED.mkdir(exist_ok=True)
    rows.to_csv(STORED / "trainings.csv", index=False)
    wrong = [missed for job, (_, missed) in zip(todo, done, strict=True) if job.question == "seeds"]
    image_intervals(wrong).to_csv(STORED / "intervals.csv", index=False)


if __name__ == "__main__":
    main()
