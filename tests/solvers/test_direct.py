"""The direct solve against dense algebra, and where it leaves something out."""

import numpy
import pytest
import torch

from reconstruct.operators.convolution import Convolution
from reconstruct.solvers import direct
from tests.builders.synthetic import smooth_noise


def layer(filters, channels, kernel, stride, size, dilation=1, seed=0):
    weight = torch.randn(filters, channels, *kernel, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Convolution(weight, stride, 0, size, dilation=dilation)


def ridge(operator, strength):
    """A multiple of the identity at all frequencies."""
    height, width = direct.torus_of(operator)
    parts = operator.input_shape[0] * operator.stride**2
    return strength * torch.eye(parts, dtype=torch.complex128).expand(height, width // 2 + 1, parts, parts)


def dense(operator):
    columns = numpy.eye(operator.columns).reshape(-1, *operator.input_shape)
    return operator.apply(columns).reshape(operator.columns, -1).T


# Filters, channels, kernel, stride, size, dilation. Among them: longer than a run, a rest of a run, oblong, one window
# in a direction, a kernel that is a whole number of strides and one that is not, pixels that no window sees.
LAYERS = [
    (8, 1, (3, 3), 2, (37, 41), 1),
    (14, 3, (5, 5), 2, (23, 23), 1),
    (20, 1, (4, 4), 3, (16, 31), 1),
    (9, 1, (3, 2), 1, (9, 12), 1),
    (12, 1, (3, 3), 2, (3, 21), 1),
    (6, 1, (2, 2), 1, (8, 9), 2),
    (30, 2, (5, 4), 3, (18, 26), 1),
    (24, 1, (5, 5), 4, (32, 35), 1),
]


@pytest.mark.parametrize(("filters", "channels", "kernel", "stride", "size", "dilation"), LAYERS)
@pytest.mark.parametrize("strength", [1e-3, 1.0])
def test_it_is_the_regularised_least_squares(monkeypatch, filters, channels, kernel, stride, size, dilation, strength):
    monkeypatch.setattr(direct, "VISIBLE", -numpy.inf)  # every combination is kept: nothing is left out
    operator = layer(filters, channels, kernel, stride, size, dilation)
    upper = numpy.linalg.norm(dense(operator), 2) ** 2
    inverse = direct.DirectInverse(operator, ridge(operator, strength * upper))
    responses = torch.randn(11, *operator.output_shape, generator=torch.Generator().manual_seed(1)).double()
    found = inverse.solve(responses)
    matrix = dense(operator)
    normal = matrix.T @ matrix + strength * upper * numpy.eye(operator.columns)
    exact = numpy.linalg.solve(normal, matrix.T @ responses.flatten(1).numpy().T).T
    # The triangular solves are float32, and are amplified by the root of the condition number, 1 / strength.
    error = numpy.linalg.norm(found.flatten(1).numpy() - exact) / numpy.linalg.norm(exact)
    assert error < 30 * numpy.finfo(numpy.float32).eps / strength**0.5


def test_images_of_a_batch_are_independent():
    operator = layer(14, 3, (5, 5), 2, (23, 23))
    inverse = direct.DirectInverse(operator, ridge(operator, 0.1))
    responses = torch.randn(direct.AT_A_TIME + 3, *operator.output_shape, generator=torch.Generator().manual_seed(2))
    together = inverse.solve(responses)
    for image in (0, direct.AT_A_TIME - 1, direct.AT_A_TIME, len(responses) - 1):
        alone = inverse.solve(responses[image : image + 1])
        # float32, amplified by at most the root of the condition number, 10.
        assert (together[image] - alone[0]).norm() < 30 * torch.finfo(torch.float32).eps * 10**0.5 * alone.norm()


def test_pixels_that_no_window_sees_are_zero():
    operator = layer(24, 1, (5, 5), 4, (32, 35))  # 7 windows of stride 4: rows 29 to 31, columns 33 and 34 are unseen
    found = direct.DirectInverse(operator, ridge(operator, 0.1)).solve(torch.ones(1, *operator.output_shape))
    assert (operator.column_energy == 0).any()
    assert not found[:, :, torch.as_tensor(operator.column_energy[0, 0] == 0)].any()


def test_leaving_out_what_images_cannot_respond_costs_little():
    """Fewer unknowns, and an image of the prior's kind comes back as without leaving anything out."""
    operator = layer(24, 1, (5, 5), 2, (41, 41))
    image = smooth_noise(1, (41, 41), torch.Generator().manual_seed(3))[:, :1] - 0.5
    responses = operator.convolve(image)
    height, width = direct.torus_of(operator)
    # Curvature, large for fine detail, as a diagonal operator on the pixels of the torus in polyphase form.
    curvature = Convolution(torch.tensor([[[[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]]]]), 1, 0, (3, 3)).weight
    waves = torch.zeros(2 * height, 2 * width, dtype=torch.float64)
    for down in range(3):
        for right in range(3):
            waves[down - 1, right - 1] += curvature[0, 0, down, right]
    power = torch.fft.fft2(waves).abs() ** 2 + 1e-3
    kernel = torch.fft.ifft2(power).real
    places = torch.cartesian_prod(torch.arange(2), torch.arange(2))
    lags = torch.zeros(height, width, 4, 4, dtype=torch.float64)
    for a, first in enumerate(places):
        for b, second in enumerate(places):
            down = (2 * torch.arange(height) + first[0] - second[0]) % (2 * height)
            right = (2 * torch.arange(width) + first[1] - second[1]) % (2 * width)
            lags[:, :, a, b] = kernel[down[:, None], right]
    regularisation = 1e-4 * torch.fft.rfft2(lags, dim=(0, 1))
    few = direct.DirectInverse(operator, regularisation)
    everything = 24 * (height * width - operator.output_shape[1] * operator.output_shape[2])
    assert few.unknowns < 0.8 * everything
    misfit = (responses - operator.convolve(few.solve(responses))).norm() / responses.norm()
    assert misfit < 1e-3


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Convolution(torch.ones(9, 1, 3, 3), 1, 1, (8, 8)), "padding"),
        (lambda: Convolution(torch.ones(9, 1, 3, 3), 1, 0, (8, 8), groups=3), "groups"),
        (lambda: Convolution(torch.ones(9, 1, 2, 2), 2, 0, (8, 8)), "windows that do not overlap"),
        (lambda: Convolution(torch.ones(18, 1, 3, 2), 2, 0, (9, 8)), "windows that overlap one way only"),
        (lambda: Convolution(torch.ones(2, 3, 3, 3), 1, 0, (8, 8)), "fewer responses than pixels"),
    ],
)
def test_where_there_is_none(make, why):
    assert not direct.serves(make()), why
