"""The charts of an evaluation's report, each the address of an SVG that is legible on a phone."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from src.evaluation.diagnosis import ERRORS, RELIABLE, Diagnosis, SizeRange
from src.evaluation.plots import ACCENTS, INK, MUTED, draw_curves, figure_uri, literal, new_figure
from src.evaluation.thresholds import SCORES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = {"width": 4.7, "height": 3.3}  # inches: text of 9 points is legible where a chart is 350 pixels wide
MAX_NAMED = 6                         # more curves are drawn without names
BAR = "#8fa6d9"


def precision_recall(diagnosis: Diagnosis) -> str:
    """Precision over recall at IoU .50 of each class and their mean."""
    figure, axis = new_chart()
    curves = {name: (values, f"{values.mean():.2f}") for name, values in
              zip(diagnosis.classes, diagnosis.precision[0, :, :, 0].T) if values.max() >= 0}
    x = np.linspace(0, 1, 101)
    draw_curves(axis, curves, x=x, classes=diagnosis.classes, max_named=MAX_NAMED)
    if curves:
        mean = np.mean([values for values, _ in curves.values()], axis=0)
        axis.plot(x, mean, color=INK, linewidth=2.4, label=f"mean  {mean.mean():.2f}")
    legend_below(figure)
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    return figure_uri(figure)


def f1_over_score(diagnosis: Diagnosis) -> str:
    """F1 over the least score of each class and of all boxes, and the score to use."""
    figure, axis = new_chart()
    f1 = diagnosis.curves.f1
    curves = {name: (f1[:, index], "") for index, name in enumerate(diagnosis.classes)
              if diagnosis.curves.boxes[index]}
    draw_curves(axis, curves, x=SCORES, classes=diagnosis.classes, max_named=MAX_NAMED)
    axis.plot(SCORES, f1[:, -1], color=INK, linewidth=2.4, label="all boxes")
    if diagnosis.chosen:
        axis.axvline(diagnosis.chosen["draw_score"], color=INK, linestyle="--", linewidth=1,
                     label=f"use {diagnosis.chosen['draw_score']:g}")
    legend_below(figure)
    axis.set(xlabel="least score of a box", ylabel="F1", xlim=(0, 1), ylim=(0, 1.02))
    return figure_uri(figure)


def found_by_size(sizes: Sequence[SizeRange]) -> str:
    """The share of the objects of each size that is found, and how many there are."""
    return share_by_size(sizes, label="share found", line=RELIABLE)


def share_by_size(sizes: Sequence[SizeRange], *, label: str, line: float | None = None) -> str:
    """A bar for each range of sizes. line: a height that is marked."""
    figure, axis = new_chart()
    axis.bar(range(len(sizes)), [each.share for each in sizes], 0.75, color=BAR)
    if line is not None:
        axis.axhline(line, color=MUTED, linestyle="--", linewidth=1)
    small = 8 if len(sizes) <= 8 else 7
    for place, each in enumerate(sizes):
        axis.text(place, 0.02, f"{each.boxes}", ha="center", fontsize=small, color=INK)
    axis.set_xticks(range(len(sizes)), [each.name for each in sizes], fontsize=small,
                    rotation=0 if len(sizes) <= 8 else 60)
    axis.set(xlabel="side in pixels of the image (square root of the area)", ylabel=label, ylim=(0, 1.02))
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.grid(False, axis="x")
    return figure_uri(figure)


def lost_by_errors(errors: dict[str, float]) -> str:
    """The AP50 that each kind of error costs."""
    figure, axis = new_chart()
    names = sorted(errors, key=errors.get)
    values = [max(errors[name], 0) for name in names]
    axis.barh(range(len(names)), values, 0.7, color=BAR)
    for place, value in enumerate(values):
        axis.text(value, place, f" {value:.3f}", va="center", fontsize=8, color=INK)
    axis.set_yticks(range(len(names)), [ERRORS[name] for name in names])
    axis.set(xlabel="AP50 that would be gained without the error", xlim=(0, max(*values, 0.01) * 1.2))
    axis.grid(False, axis="y")
    return figure_uri(figure)


def reliability(bins: Sequence[dict]) -> str:
    """The share of right boxes over their scores."""
    figure, axis = new_chart()
    used = [each for each in bins if each["count"]]
    axis.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1, label="as the score says")
    axis.bar([each["bin_lower"] for each in used], [each["avg_accuracy"] for each in used],
             [each["bin_upper"] - each["bin_lower"] for each in used], align="edge", color=BAR, edgecolor="white",
             label="boxes that are right")
    for each in used:
        axis.text((each["bin_lower"] + each["bin_upper"]) / 2, 1.04, short_count(each["count"]), ha="center",
                  fontsize=8, color=INK)
    legend_below(figure)
    axis.set(xlabel="score (above: how many boxes)", ylabel="share right", xlim=(0, 1), ylim=(0, 1.12))
    axis.set_yticks(np.linspace(0, 1, 6))
    return figure_uri(figure)


def histogram(values: Sequence[np.ndarray], edges: np.ndarray, *, label: str, names: Sequence[str],
              ticks: Sequence[float] = ()) -> str:
    """Shares of values by range, the first series filled, the others as lines, so that all are seen.

    values: [N] of each series; edges [M] of the ranges; ticks: of a logarithmic axis, () for a linear one.
    """
    figure, axis = new_chart()
    for index, (series, name) in enumerate(zip(values, names)):
        style = {"color": BAR} if index == 0 else {"color": ACCENTS[index % len(ACCENTS)], "histtype": "step",
                                                   "linewidth": 1.6}
        weights = np.full(len(series), 1 / max(len(series), 1))
        axis.hist(np.clip(series, edges[0], edges[-1]), edges, weights=weights, label=literal(name), **style)
    if ticks:
        axis.set_xscale("log")
        shown = [tick for tick in ticks if edges[0] <= tick <= edges[-1]]
        axis.set_xticks(shown, [f"{tick:g}" for tick in shown])
        axis.set_xticks([], minor=True)
    else:
        axis.locator_params(axis="x", integer=True)
    legend_below(figure)
    axis.set(xlabel=label, ylabel="share", xlim=(edges[0], edges[-1]))
    return figure_uri(figure)


def new_chart() -> tuple[Figure, Axes]:
    """A figure of one chart and its axis."""
    figure, (axis,) = new_figure(1, **SIZE)
    return figure, axis


def legend_below(figure: Figure) -> None:
    """The legend under the chart, where it hides no curve."""
    if figure.axes[0].get_legend_handles_labels()[0]:
        figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=3)


def short_count(count: int) -> str:
    """950, 1.2k, 34k"""
    return f"{count}" if count < 1000 else f"{count / 1000:.2g}k" if count < 9950 else f"{count / 1000:.0f}k"
