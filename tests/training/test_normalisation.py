import copy
from pathlib import Path

import numpy
import pytest
import torch

from reconstruct.network.architecture import Architecture, Layer
from reconstruct.network.network import Network
from reconstruct.network.surgery import without_dropout
from reconstruct.training import normalisation
from reconstruct.training.data import Arrays, Augmentation, Batches
from reconstruct.training.loop import Recipe, fit, loss_and_error
from reconstruct.training.normalisation import are_disturbed, measure_statistics
from reconstruct.training.start import start_evenly
from tests.builders import synthetic

LAYERS = (
    *(Layer(f"conv{k}", 8, 3, padding=1, batch_norm=True, dropout=0.5) for k in range(1, 5)),
    Layer("conv5", 3, 1, activation="none"),
)
DROPPING = Architecture("dropping", LAYERS, 8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def test_only_dropout_beside_batch_normalisation_disturbs() -> None:
    assert are_disturbed(DROPPING)
    assert not are_disturbed(without_dropout(DROPPING))
    assert not are_disturbed(Architecture("plain", (Layer("a", 2, 3, dropout=0.5),), 8, (0.5,) * 3, (0.2,) * 3))


def test_normalised_responses_are_as_large_as_without_dropout() -> None:
    images = torch.from_numpy(synthetic.patterns(64, 8, 3)[0]) / 255
    net = start_evenly(Network(DROPPING), 0).train()
    with torch.no_grad():
        for _ in range(60):
            net(images)
    without = Network(without_dropout(DROPPING)).train()
    without.load_state_dict(net.state_dict())
    with torch.no_grad():
        expected = without(images)
        disturbed = net.eval()(images)
        before = copy.deepcopy([each.momentum for each in net.modules() if isinstance(each, torch.nn.BatchNorm2d)])
        measure_statistics(net.train(), [images])
        assert net.training
        assert [each.momentum for each in net.modules() if isinstance(each, torch.nn.BatchNorm2d)] == before
        found = net.eval()(images)
    # A running variance is divided by 64 x 64 - 1 values, one of a batch by 64 x 64.
    assert torch.allclose(found, expected, rtol=1e-2, atol=1e-2)
    assert disturbed.std(0).mean() < 0.5 * expected.std(0).mean()


def test_a_run_validates_and_ends_with_statistics_of_its_last_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconstruct.training.loop.BATCHES", 3)
    pictures = Arrays(*synthetic.patterns(40, 8, 3), ["a", "b", "c"])
    net, augment = start_evenly(Network(DROPPING), 0), Augmentation(8)
    trained = fit(net, pictures, Recipe(2, 8, 0.01), augment, tmp_path, validation=pictures, seed=4)
    ended = {key: value.clone() for key, value in net.state_dict().items()}
    batches = Batches(pictures, augment, 8, 4)
    normalisation.measure_statistics(net, [batches[step][0].float() / 255 for step in (7, 8, 9)])
    for key, value in net.state_dict().items():
        assert torch.allclose(value.float(), ended[key].float(), rtol=1e-5, atol=1e-6), key
    last = trained.rows[-1]
    assert numpy.allclose(loss_and_error(net, pictures, augment), (last.validation_loss, last.validation_error), 1e-4)
