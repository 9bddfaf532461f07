"""Curves of training runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from PIL import Image

from reconstruct.report.figures.style import drawn, label


def training_curves(logs: Mapping[str, Sequence[Mapping[str, str]]], agreement: bool) -> Image.Image:
    """Loss and held-out error of training runs.

    Parameters
    ----------
    logs : by the runs' names the rows of their ``log.csv``.
    agreement : the runs learned from a teacher, so the error is disagreement and its complement is drawn.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    losses, errors = figure.subplots(1, 2)
    for number, (name, rows) in enumerate(logs.items()):
        colour = f"C{number}"
        held = [row for row in rows if row["validation_loss"]]
        losses.plot([int(row["step"]) for row in rows], [float(row["loss"]) for row in rows], color=colour, alpha=0.45)
        steps = [int(row["step"]) for row in held]
        losses.plot(
            steps, [float(row["validation_loss"]) for row in held], "o-", color=colour, markersize=3, label=label(name)
        )
        found = [float(row["validation_error"]) for row in held]
        errors.plot(
            steps, [100 * (1 - error if agreement else error) for error in found], "o-", color=colour, markersize=3
        )
    losses.set(xlabel="step", ylabel="KL divergence from the teacher" if agreement else "loss")
    losses.set_title("line: training, dots: held out", fontsize=9)
    errors.set(xlabel="step", ylabel="held-out agreement with the teacher, %" if agreement else "held-out error, %")
    for axes in (losses, errors):
        axes.grid(alpha=0.3)
    losses.legend(frameon=False, fontsize=8)
    return drawn(figure)
