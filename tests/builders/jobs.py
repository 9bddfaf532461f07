"""Jobs of an evaluation that are soon done."""

from typing import Any

from reconstruct.evaluation.batch import Job


def job(**changes: Any) -> Job:
    options = {"budget": 20.0, "tolerance": None, "seed": 0}
    return Job(**({"methods": {"conv1": ["linear", "map"], "conv2": ["gradient"]}, "options": options} | changes))
