"""Train every strategy with fewer and with more updates than the fast recipe makes.

    MNIST_NPZ=.../mnist.npz python tools/updates.py [--seeds 10]

It writes docs/updates.csv, one row per training, in about half an hour; docs/results.ipynb computes the rest.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.cnn import Architecture
from helpers.datasets import load_dataset
from helpers.experiment import Plan, pretrain
from helpers.tasks import subsample
from helpers.training import RECIPES, Recipe
from helpers.transfer import STRATEGIES, Networks, Repetition

STORED = Path(__file__).resolve().parents[1] / "docs" / "updates.csv"
FAST, ARCHITECTURE = RECIPES["fast"], Architecture()
UPDATES = {10: (50, 100, 200, 400), 50: (50, 100, 200, 400), "all": (144, 287, 574)}  # 574 are an epoch


class Exactly(Recipe):
    """The fast recipe with a number of updates that does not depend on the images."""

    def updates(self, images: int) -> int:
        """Return `min_updates`, where a recipe makes an epoch of updates at least."""
        return self.min_updates


def train_all(seeds: int) -> pd.DataFrame:
    """Return one row per training: strategy, labels_per_class, updates, seed, test_accuracy."""
    dataset, plan = load_dataset("mnist"), Plan((5, 6, 7, 8, 9), (0, 1, 2, 3, 4))
    counts = sorted({count for counts in UPDATES.values() for count in counts})
    networks = {n: Networks(ARCHITECTURE, Exactly(**{**asdict(FAST), "min_updates": n})) for n in counts}
    fast, rows = Networks(ARCHITECTURE, FAST), []
    with (
        TemporaryDirectory() as folder,
        tqdm(total=seeds * len(STRATEGIES) * sum(map(len, UPDATES.values())), desc="trainings") as bar,
    ):
        for seed in range(seeds):
            source, target = plan.tasks(dataset, seed)
            repetition = Repetition(seed, target, pretrain(Path(folder), source, fast, seed))
            for budget, counts in UPDATES.items():
                images, features = subsample(target.train, budget, seed), {}
                for strategy in sorted(STRATEGIES.values(), key=lambda strategy: strategy.start):
                    if strategy.freezes and strategy.start not in features:
                        features = {strategy.start: fast.extract(strategy, repetition, images)}
                    cached = features[strategy.start] if strategy.freezes else None
                    for count in counts:
                        _, scores = networks[count].train(strategy, repetition, images, cached)
                        accuracy = np.mean(scores.argmax(axis=1) == target.test.labels)
                        rows.append((strategy.name, budget, count, seed, round(float(accuracy), 5)))
                        bar.update()
    return pd.DataFrame(rows, columns=["strategy", "labels_per_class", "updates", "seed", "test_accuracy"])


def main() -> None:
    """Train, and store the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="seeds, from 0 on (default: 10)")
    train_all(parser.parse_args().seeds).to_csv(STORED, index=False)


if __name__ == "__main__":
    main()
