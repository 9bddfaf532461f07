from dataclasses import fields

import pytest
import torch

from reconstruct.analysis.spectrum.dc_training import lagged_means, pooled_linear, pooled_relu, train_dc_models
from reconstruct.errors import CallError


def test_the_linear_model_needs_no_more_than_lagged_means(generator: torch.Generator) -> None:
    """Against torch's convolutions, borders and all; and of values from 0 up ReLU does nothing."""
    waves = torch.rand(2, 5, 1, 17, generator=generator, dtype=torch.float64)
    first = torch.rand(2, 4, 1, 3, generator=generator, dtype=torch.float64) - 0.5
    second = torch.rand(2, 6, 4, 3, generator=generator, dtype=torch.float64) - 0.5
    means = lagged_means(waves, 5)
    assert float(means[1, 2, 3]) == pytest.approx(float(waves[1, 2, 0, :-3].sum()) / 17)
    for s in range(2):
        h = torch.nn.functional.conv1d(torch.nn.functional.pad(waves[s], (2, 0)), first[s])
        expected = torch.nn.functional.conv1d(torch.nn.functional.pad(h, (2, 0)), second[s]).mean(2)
        torch.testing.assert_close(pooled_linear(means, first, second)[s], expected, rtol=0, atol=1e-14)
        rectified = torch.nn.functional.conv1d(torch.nn.functional.pad(h.relu(), (2, 0)), second[s]).relu().mean(2)
        torch.testing.assert_close(pooled_relu(waves, first, second)[s], rectified, rtol=0, atol=1e-14)
    torch.testing.assert_close(
        pooled_relu(waves, first.abs(), second.abs()), pooled_linear(means, first.abs(), second.abs())
    )


def test_seeds_train_side_by_side_as_they_do_alone() -> None:
    together = train_dc_models(2, 2, 40, seed=5)
    alone = train_dc_models(1, 2, 40, seed=6)
    for both, one in zip(together, alone, strict=True):
        for field in fields(both)[1:]:
            torch.testing.assert_close(
                getattr(both, field.name)[..., 1:], getattr(one, field.name), rtol=1e-4, atol=1e-5
            )


def test_relu_learns_what_a_linear_model_does_not_see() -> None:
    """And the DC given by hand is learned with the least change of the weights."""
    relu, linear, given = train_dc_models(1, 25, 256)
    assert float(relu.accuracy[-1]) > 0.99
    assert float(relu.loss[-1]) < 0.05
    assert float(linear.loss[-1]) > 0.5
    assert float(given.loss[-1]) < float(linear.loss[-1])
    for distance in ("distance1", "distance2"):
        values = [float(getattr(run, distance)[-1, 0]) for run in (given, relu, linear)]
        assert 0 < values[0] < values[1] < values[2]


def test_faulty_trainings_are_refused() -> None:
    with pytest.raises(CallError, match="there are relu, linear, linear_dc"):
        train_dc_models(models=("tanh",))
    with pytest.raises(CallError, match="at least 1"):
        train_dc_models(seeds=0)


def test_a_record_holds_means_and_deviations_over_the_seeds() -> None:
    (run,) = train_dc_models(2, 3, 10, models=("relu",))
    record = run.record()
    assert record["network"] == "relu"
    assert record["loss"] == run.loss.mean(1).tolist()
    assert record["distance2_std"] == run.distance2.std(1).tolist()
    assert record["start1"] == float(run.start1.mean())
