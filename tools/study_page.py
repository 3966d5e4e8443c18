"""The page "Does it hold?": for each question a finding, a figure and a table, from the rows of tools/study.py."""

from collections.abc import Callable, Sequence
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter

from helpers.plots import accuracy_by_labels
from helpers.plots.figures import COLORS, MARKERS, STYLES, as_designed, new_figure, png
from helpers.runner.report import headline
from helpers.statistics import Finding, finding, interval, summarize
from helpers.transfer import STRATEGIES
from helpers.wording import percent

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "does_it_hold.md"
OTHERS = [name for name in STRATEGIES if name != "scratch"]
BUDGETS, DEFAULT = (5, 10, 20, 50, 100, 200, 500, "all"), (10, 50, "all")  # the latter are those of lesson 05
KINDS = ("the same", "nothing can be told", "another finding", "the opposite")
CONTROLS = ("shuffled kernels", "shuffled labels", "shuffled labels, a tenth of the rate")
POINTS = ["panel", "label", "series", "mean", "low", "high"]
Interval = tuple[float, float, float]
Answer = tuple[str, Figure, str]  # a finding in a sentence or some, its figure, its table in Markdown


def readable(rows: pd.DataFrame) -> pd.DataFrame:
    """Return stored rows as `summarize` takes them, without seconds, and with source and target in one column."""
    budgets = rows["labels_per_class"].map(lambda budget: budget if budget == "all" else int(budget))
    pairs = (rows["source"] + " → " + rows["target"]).where(
        rows["dataset"] == "mnist", "vehicles → animals (" + rows["dataset"] + ")"
    )
    places = {name: place for names in (BUDGETS, STRATEGIES) for place, name in enumerate(names)}
    ordered = rows.assign(labels_per_class=budgets, pair=pairs.str.replace(", ", " ")).sort_values(
        ["labels_per_class", "strategy"],
        key=lambda column: column.map(lambda name: places.get(name, 99)),
        kind="stable",
    )
    seconds = dict.fromkeys(("train_seconds", "extract_seconds", "pretrain_seconds"), 0.0)
    accuracies = {"test_accuracy": 1 - rows["errors"] / rows["images"], "test_errors": rows["errors"]}
    return ordered.assign(**accuracies, **seconds)


def about(rows: pd.DataFrame, question: str, seeds: int = 10, budgets: Sequence[int | str] = ()) -> pd.DataFrame:
    """Return the rows of one question on its target task, of the first seeds, and of some label budgets if named."""
    chosen = rows[(rows["question"] == question) & (rows["task"] == "target") & (rows["seed"] < seeds)]
    return chosen[chosen["labels_per_class"].isin(budgets)] if budgets else chosen


def by_seed(rows: pd.DataFrame, values: str = "test_accuracy") -> pd.DataFrame:
    """Return a value of each training: a row per label budget and strategy, a column per seed."""
    return rows.pivot_table(values, ["labels_per_class", "strategy"], "seed", sort=False)


def points(one: pd.Series, other: pd.Series) -> np.ndarray:
    """Return by how many percentage points one accuracy is above another, seed by seed."""
    return 100 * (one - other).to_numpy()


def found(differences: np.ndarray) -> Finding:
    """Return the finding on differences in percentage points, one per seed."""
    return finding(*interval(differences))


def ratio(one: pd.Series, other: pd.Series) -> Interval:
    """Return how many times as many errors one makes as another, paired by seed on the log, with its interval."""
    mean, low, high = np.exp(interval(np.log((one + 0.5) / (other + 0.5)).to_numpy()))
    return mean, low, high


def written(values: Interval, form: str = ".2f") -> str:
    """Write a mean with the ends of its interval."""
    mean, low, high = (format(value, form) for value in values)
    return f"{mean} ({low} to {high})"


def markdown(table: pd.DataFrame, *index: str) -> str:
    """Return a table as Markdown, its index as the first columns, named so; names of strategies as code."""
    flat = table.rename_axis(list(index)).reset_index().astype(str)
    flat = flat.replace({"strategy": {name: f"`{name}`" for name in STRATEGIES}})
    lines = [list(map(str, flat.columns)), ["---"] * len(flat.columns), *flat.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def across(values: pd.Series) -> pd.DataFrame:
    """Return values by label budget and strategy with a row per strategy and a column per budget, in their order."""
    return pd.DataFrame({budget: values.loc[budget] for budget in dict.fromkeys(values.index.get_level_values(0))})


def ten_seeds(rows: pd.DataFrame) -> Answer:
    """Answer at which label budgets which strategy is better, with ten seeds."""
    rows = about(rows, "seeds")
    accuracy, errors = by_seed(rows), by_seed(rows, "errors")
    cells = {
        (budget, name): f"{found(points(accuracy.loc[budget, name], accuracy.loc[budget, 'scratch']))}: "
        f"{written(ratio(errors.loc[budget, name], errors.loc[budget, 'scratch']))}"
        for budget, name in accuracy.index
        if name != "scratch"
    }
    means, ratios = (across(each).T for each in (accuracy.apply(percent, axis=1), pd.Series(cells)))
    table = f"{markdown(means, 'labels per class')}\n\nEach against `scratch`, in times its errors:\n\n"
    table += markdown(ratios, "labels per class")
    summary = summarize(rows)
    sentence = headline(summary)
    return f"{sentence[0].upper()}{sentence[1:]}.", accuracy_by_labels(summary), table


def kind(few: Finding, many: Finding) -> str:
    """Say how the finding of a few seeds compares with that of many."""
    if few == many:
        return KINDS[0]
    if few in (Finding.CANNOT_TELL, Finding.NO_DIFFERENCE):
        return KINDS[1]
    return KINDS[3] if {few, many} == {Finding.BETTER, Finding.WORSE} else KINDS[2]


def three_of_ten(rows: pd.DataFrame) -> Answer:
    """Answer how often three of the ten seeds would have given another finding than all ten, and how often five."""
    threes, fives = (subsets_of_seeds(by_seed(about(rows, "seeds")), count) for count in (3, 5))
    said = []
    for words, table in (("Three", threes), ("Five", fives)):
        of_lesson = table.loc[list(DEFAULT), list(KINDS)].sum()
        same, nothing, another, opposite = of_lesson / of_lesson.sum()
        said.append(
            f"{words} seeds find the same as ten in {same:.0%} of all cases at the budgets of lesson 05, can tell "
            f"nothing where ten can in {nothing:.0%}, find something else in {another:.1%} and the opposite in "
            f"{opposite:.1%}."
        )
    shares = threes[list(KINDS)].groupby(level=0, sort=False).sum()
    return " ".join(said), stacked(shares), markdown(threes, "labels per class", "strategy")


def subsets_of_seeds(accuracy: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return for each label budget and strategy the finding of all seeds, and how many sets of some find which kind."""
    counts = {}
    for budget, name in accuracy.index:
        if name != "scratch":
            differences = points(accuracy.loc[budget, name], accuracy.loc[budget, "scratch"])
            many = found(differences)
            kinds = [
                kind(found(differences[list(some)]), many) for some in combinations(range(len(differences)), count)
            ]
            counts[budget, name] = {"all seeds": many} | {each: kinds.count(each) for each in KINDS}
    return pd.DataFrame.from_dict(counts, orient="index")


@as_designed
def stacked(counts: pd.DataFrame) -> Figure:
    """Draw the shares of kinds as stacked bars, one per label budget."""
    figure = new_figure(height=3.2)
    axis, left = figure.subplots(), np.zeros(len(counts))
    shares = 100 * counts.div(counts.sum(axis=1), axis=0)
    for name, color, hatch in zip(KINDS, ("0.85", COLORS[6], COLORS[3], COLORS[5]), ("", "", "//", "xx"), strict=True):
        axis.barh(range(len(shares)), shares[name], left=left, color=color, hatch=hatch, label=name)
        left += shares[name].to_numpy()
    axis.set_yticks(range(len(shares)), shares.index)
    axis.set(xlabel="share of all triples, four strategies [%]", ylabel="labels per class", xlim=(0, 100))
    axis.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def tuned(rows: pd.DataFrame) -> Answer:
    """Answer whether tuning each strategy on its own changes a finding."""
    parts = {"one recipe": about(rows, "seeds", 5, DEFAULT), "tuned": about(rows, "tuned", 5)}
    before, after = map(by_seed, parts.values())
    rates = rows.loc[rows["question"] == "tuning", "learning_rate"]
    lines, drawn, changes = {}, [], []
    for budget, name in before.index:
        gain = points(after.loc[budget, name], before.loc[budget, name])
        taken = parts["tuned"].query(
            "labels_per_class == @at and strategy == @of", local_dict={"at": budget, "of": name}
        )
        lines[budget, name] = {
            "one recipe": percent(before.loc[budget, name]),
            "tuned": percent(after.loc[budget, name]),
            "gain, points": written(interval(gain), "+.2f"),
            "rate": ", ".join(str((taken["learning_rate"] == rate).sum()) for rate in sorted(set(rates))),
        }
        if name == "scratch":
            continue
        for part, each in zip(parts, (before, after), strict=True):
            one_found = found(points(each.loc[budget, name], each.loc[budget, "scratch"]))
            lines[budget, name][f"finding, {part}"] = one_found
            errors = by_seed(parts[part], "errors").loc[budget]
            drawn.append((budget, name, part, *ratio(errors.loc[name], errors.loc["scratch"])))
        one, other = (lines[budget, name][f"finding, {part}"] for part in parts)
        changes += [f"{name} with {budget} labels from *{one}* to *{other}*"] * (one != other)
    table = pd.DataFrame.from_dict(lines, orient="index").fillna("")
    sentence = f"{len(changes)} of {len(drawn) // 2} findings change{': ' * bool(changes)}{'; '.join(changes)}."
    return sentence, forest(drawn), markdown(table, "labels per class", "strategy")


def other_tasks(rows: pd.DataFrame) -> Answer:
    """Answer what frozen features are worth from other sources to other targets."""
    rows = pd.concat([about(rows, "seeds", 3, (10, 50)), about(rows, "tasks", 3)])
    cells, drawn, with_50 = {}, [], []
    for pair, at in rows.groupby("pair", sort=False):
        accuracy, errors = by_seed(at), by_seed(at, "errors")
        for budget, other in product((10, 50), ("scratch", "random-frozen")):
            values = ratio(errors.loc[budget, "frozen"], errors.loc[budget, other])
            one_found = found(points(accuracy.loc[budget, "frozen"], accuracy.loc[budget, other]))
            cells.setdefault(pair, {})[f"{budget} labels, against `{other}`"] = f"{one_found}: {written(values)}"
            drawn.append((budget, pair, f"frozen against {other}", *values))
            if (budget, other) == (50, "scratch") and pair[0].isdigit():
                with_50.append((values[0], one_found))
    times, of_pairs = zip(*with_50, strict=True)
    sentence = (
        f"From digits to digits, with 50 labels per class, frozen features make {min(times):.2f} to {max(times):.2f} "
        f"times the errors of scratch; on {of_pairs.count(Finding.BETTER)} of {len(of_pairs)} pairs three seeds find "
        "them better."
    )
    table = markdown(pd.DataFrame.from_dict(cells, orient="index"), "source → target")
    return sentence, forest(drawn, "times the errors of the other"), table


def controls(rows: pd.DataFrame) -> Answer:
    """Answer how much of the gain is features, and how much the weights' scale, or any training at all."""
    altered = about(rows, "controls")
    altered = altered.assign(strategy=altered["strategy"] + ", " + altered["control"])
    every = pd.concat([about(rows, "seeds", 10, DEFAULT), altered])
    parts = [*(f", {control}" for control in CONTROLS), ""]
    order = ["scratch", "random-frozen"]
    order += [f"{name}{part}" for name in ("frozen", "fine-tuned") for part in parts]
    accuracy, errors = by_seed(every), by_seed(every, "errors")
    cells, drawn = {}, []
    for budget, name in product(DEFAULT, order):
        cells.setdefault(name, {})[budget] = percent(accuracy.loc[budget, name])
        if name != "scratch" and not name.endswith(", shuffled labels"):  # those guess: they would squeeze the rest
            drawn.append((budget, name, "", *ratio(errors.loc[budget, name], errors.loc[budget, "scratch"])))
    at = accuracy.loc[50]
    sentence = "With 50 labels per class, in points."
    for baseline, name in (("random-frozen", "frozen"), ("scratch", "fine-tuned")):
        above = {
            part: points(at.loc[f"{name}{part}"], at.loc[baseline]) for part in parts if part != ", shuffled labels"
        }
        gains = [
            f"{part.lstrip(', ') or 'pretrained'} {written(interval(gain), '+.2f')}" for part, gain in above.items()
        ]
        sentence += f" {name.capitalize()}, above {baseline}: {'; '.join(gains)}."
    table = markdown(pd.DataFrame.from_dict(cells, orient="index"), "strategy")
    return sentence, forest(drawn), table


def backbone(rows: pd.DataFrame) -> Answer:
    """Answer how features learnt on photos compare with those learnt on other digits."""
    usual = about(rows, "seeds")
    every = pd.concat([usual[usual["strategy"].isin(("scratch", "frozen"))], about(rows, "backbone")])
    accuracy, lines, said = by_seed(every), {}, {}
    for budget in dict.fromkeys(every["labels_per_class"]):
        at = accuracy.loc[budget]
        differences = {other: points(at.loc["backbone"], at.loc[other]) for other in ("scratch", "frozen")}
        cells = {
            f"against `{name}`, points": f"{found(each)}: {written(interval(each), '+.2f')}"
            for name, each in differences.items()
        }
        lines[budget] = {"MobileNet": percent(at.loc["backbone"]), **cells}
        said.setdefault(found(differences["frozen"]), []).append(str(budget))
    sentence = "; ".join(f"with {', '.join(budgets)} labels per class: {word}" for word, budgets in said.items())
    table = markdown(pd.DataFrame.from_dict(lines, orient="index"), "labels per class")
    return (
        f"MobileNet's features against those of other digits, {sentence}.",
        accuracy_by_labels(summarize(every)),
        table,
    )


def test_images(intervals: pd.DataFrame) -> Answer:
    """Answer how much wider intervals get that count the test images as well.

    A bootstrap of ten seeds alone is narrower than t. So what the images add is the ratio of the two bootstraps.
    """
    ends = intervals.replace({"labels_per_class": {str(b): b for b in BUDGETS}}).set_index(
        ["labels_per_class", "strategy"]
    )
    names = {"t": "t over seeds", "seeds": "bootstrap over seeds", "both": "over seeds and images"}
    wide = pd.DataFrame({name: ends[f"{column}_high"] - ends[f"{column}_low"] for column, name in names.items()})
    wider = wide["over seeds and images"] / wide["bootstrap over seeds"]
    changes = []
    for (budget, name), row in ends.iterrows():
        one, other = (
            within(row["difference"], wide.loc[(budget, name), "t over seeds"] * by) for by in (1, wider[budget, name])
        )
        changes += [f"{name} with {budget} labels from *{one}* to *{other}*"] * (one != other)
    sentence = (
        f"The test images make intervals {wider[5].mean():.2f} times wider with 5 labels per class, "
        f"{wider[50].mean():.2f} times with 50 and {wider['all'].mean():.2f} times with all. With intervals of t that "
        f"are so much wider, {len(changes)} of {len(ends)} findings "
        f"change{': ' * bool(changes)}{'; '.join(changes)}."
    )
    table = wide.assign(wider=wider).map("{:.2f}".format).rename(columns={"wider": "times wider by the images"})
    return sentence, widths(across(wider).T), markdown(table, "labels per class", "strategy")


def within(difference: float, width: float) -> Finding:
    """Return the finding on a difference to `scratch`, in points, whose interval has a width."""
    low, high = difference - width / 2, difference + width / 2
    return finding(difference, low, high)


@as_designed
def forest(drawn: Sequence[tuple], axis_label: str = "times the errors of scratch") -> Figure:
    """Draw ratios with their intervals: a panel per label budget, a row per label, what is compared side by side.

    What is drawn has the columns panel, label, series, mean, low and high.
    """
    table = pd.DataFrame(drawn, columns=POINTS)
    labels, series = (list(dict.fromkeys(table[name])) for name in ("label", "series"))
    panels = table.groupby("panel", sort=False)
    figure = new_figure(height=1.2 + 0.2 * len(labels) * max(1.3, len(series)))
    axes = figure.subplots(1, panels.ngroups, sharey=True, squeeze=False)[0]
    for axis, (panel, at) in zip(axes, panels, strict=True):
        for place, (name, of_series) in enumerate(at.groupby("series", sort=False)):
            height = [labels.index(label) + 0.25 * (place - (len(series) - 1) / 2) for label in of_series["label"]]
            ends = np.abs(of_series[["low", "high"]].T.to_numpy() - of_series["mean"].to_numpy())
            style = {"color": COLORS[place + 1], "marker": MARKERS[place], "markersize": 5, "linestyle": ""}
            axis.errorbar(of_series["mean"], height, xerr=ends, label=name, capsize=2, elinewidth=1, **style)
        axis.axvline(1, color="0.4", linewidth=1)
        axis.set(title=f"{panel} labels per class", xscale="log")
        low, high = axis.get_xlim()
        ticks = [tick for tick in (0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5) if low <= tick <= high]
        axis.xaxis.set(major_locator=FixedLocator(ticks), minor_formatter=NullFormatter())
        axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3, axis="x")
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].set_ylim(len(labels) - 0.5, -0.5)
    figure.supxlabel(f"{axis_label}, with 95 % interval (log scale)", fontsize=10)
    if len(series) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    return figure


@as_designed
def widths(relative: pd.DataFrame) -> Figure:
    """Draw how many times wider intervals over seeds and images are: budgets as rows, strategies as columns."""
    figure = new_figure(height=3.2)
    axis = figure.subplots()
    for strategy in relative:
        axis.plot(range(len(relative)), relative[strategy], label=strategy, **STYLES[strategy])
    axis.axhline(1, color="0.4", linewidth=1)
    axis.set_xticks(range(len(relative)), relative.index)
    axis.set(xlabel="labels per class", ylabel="times wider by the images", ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    return figure


ANSWERS: dict[str, Callable[[pd.DataFrame], Answer]] = {
    answer.__name__: answer for answer in (ten_seeds, three_of_ten, tuned, other_tasks, controls, backbone)
}


def write(rows: pd.DataFrame, intervals: pd.DataFrame) -> None:
    """Write findings and tables between the marks of the page, and draw the figures beside the rows."""
    answers = {name: answer(readable(rows)) for name, answer in ANSWERS.items()}
    page = PAGE.read_text(encoding="utf-8")
    for name, (sentence, figure, table) in {**answers, "test_images": test_images(intervals)}.items():
        (DOCS / "study" / f"{name}.png").write_bytes(png(figure)[0])
        mark = f"<!-- {name}: written by tools/study.py -->\n"
        before, rest = page.split(mark)
        head, after = rest.split("<!-- end -->", 1)
        picture = next(line for line in head.splitlines() if line.startswith("!["))
        page = f"{before}{mark}**{sentence}**\n\n{picture}\n\n{table}\n<!-- end -->{after}"
    PAGE.write_text(page, encoding="utf-8")
