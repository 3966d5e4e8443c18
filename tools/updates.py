"""Train every strategy with fewer and with more updates than the fast recipe makes, and write what they buy.

MNIST_NPZ=.../mnist.npz python tools/updates.py [--seeds 10] [--redraw]

It writes docs/updates.csv, one row per training; from those rows it draws docs/updates.png and puts the table of means
into docs/speed.md. All of it takes about half an hour. `--redraw` takes the rows that are there.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from tqdm import tqdm

from helpers.cnn import Architecture
from helpers.datasets import load_dataset
from helpers.experiment import Plan, pretrain
from helpers.plots.figures import STYLES
from helpers.statistics import interval
from helpers.tasks import subsample
from helpers.training import RECIPES, Recipe
from helpers.transfer import STRATEGIES, Networks, Repetition

DOCS = Path(__file__).resolve().parents[1] / "docs"
MARKS = "<!-- table of updates: written by tools/updates.py -->", "<!-- end of table -->"
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


def stored() -> pd.DataFrame:
    """Return the rows of docs/updates.csv, budgets and strategies in their order."""
    rows = pd.read_csv(DOCS / "updates.csv", dtype={"labels_per_class": str})
    order = {name: place for names in (map(str, UPDATES), STRATEGIES) for place, name in enumerate(names)}
    return rows.sort_values(["labels_per_class", "strategy"], key=lambda column: column.map(order), kind="stable")


def curves(rows: pd.DataFrame) -> Figure:
    """Draw test accuracy by updates, one panel per label budget, one line per strategy with its 95 % interval."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axis, (budget, at_budget) in zip(
        figure.subplots(1, len(UPDATES)), rows.groupby("labels_per_class", sort=False), strict=True
    ):
        for strategy, of_strategy in at_budget.groupby("strategy", sort=False):
            accuracies = 100 * of_strategy.pivot(index="seed", columns="updates", values="test_accuracy")
            low, high = np.transpose([interval(accuracies[count])[1:] for count in accuracies])
            axis.plot(accuracies.columns, accuracies.mean(), label=strategy, markersize=4, **STYLES[strategy])
            axis.fill_between(accuracies.columns, low, high, color=STYLES[strategy]["color"], alpha=0.1, linewidth=0)
        axis.set(title=f"{budget} labels per class", xlabel="updates", xscale="log")
        axis.xaxis.set(major_locator=FixedLocator(accuracies.columns), minor_locator=NullLocator())
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("test accuracy [%]")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def table(rows: pd.DataFrame) -> str:
    """Return mean accuracies as Markdown: a row per budget and strategy, a column per number of updates."""
    means = rows.pivot_table(
        index=["labels_per_class", "strategy"], columns="updates", values="test_accuracy", sort=False
    ).sort_index(axis=1)
    lines = [["labels per class", "strategy", *map(str, means.columns)], ["---"] * (len(means.columns) + 2)]
    for (budget, strategy), row in means.iterrows():
        lines.append([str(budget), f"`{strategy}`", *("" if np.isnan(mean) else f"{100 * mean:.2f}" for mean in row)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Train, or read the rows that are there, then draw the figure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="seeds, from 0 on (default: 10)")
    parser.add_argument("--redraw", action="store_true", help="draw from docs/updates.csv, train nothing")
    options = parser.parse_args()
    if not options.redraw:
        train_all(options.seeds).to_csv(DOCS / "updates.csv", index=False)
    rows = stored()
    curves(rows).savefig(DOCS / "updates.png", dpi=110, metadata={"Software": None})
    page = DOCS / "speed.md"
    before, rest = page.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    page.write_text(f"{before}{MARKS[0]}\n{table(rows)}\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
