"""A method of your own in ten lines.

A method is a function of a `reconstruct.Problem`, which has the features to reach, the network with its Jacobian, and a
prior of natural images. This one takes steepest-descent steps, each as long as suits the linearised network best. With
the prior a step changes what photographs change; on bare pixels the same steps leave the picture grey.
"""

from collections.abc import Callable

import torch
from panels import PHOTOGRAPH, draw, output_folder

import reconstruct

SIZE = 99


def with_prior(problem: reconstruct.Problem) -> torch.Tensor:
    """Steps in the prior's white noise w, of which an image is `prior.image(w)`."""
    prior = problem.prior
    white = torch.zeros(len(problem), *prior.shape)
    while problem.passes + 3 <= problem.budget:
        at = problem.linearise(prior.image(white))
        step = prior.field_adjoint(prior.extend(problem.transposed(at, problem.target - at.values)))
        change = problem.product(at, prior.crop(prior.field(step)))
        white += step * (step.square().sum() / change.square().sum())
    return prior.image(white)


def on_pixels(problem: reconstruct.Problem) -> torch.Tensor:
    """The same steps on the pixels themselves."""
    image = torch.full((len(problem), 3, *problem.size), 0.5)
    while problem.passes + 3 <= problem.budget:
        at = problem.linearise(image)
        step = problem.transposed(at, problem.target - at.values)
        change = problem.product(at, step)
        image += step * (step.square().sum() / change.square().sum())
    return image


output = output_folder(__doc__)
net = reconstruct.load_model("crelu_conv1_4")
image = reconstruct.load_image(PHOTOGRAPH, SIZE)[None]
features = net.features(image, "conv2")

Method = Callable[[reconstruct.Problem], object] | str
methods: dict[str, Method] = {"on pixels": on_pixels, "with the prior": with_prior, "by map": "map"}
panels = {"original": image[0]}
for name, method in methods.items():
    result = reconstruct.invert(net, features, "conv2", method, size=SIZE, budget=100)
    [psnr] = reconstruct.quality(image, result.image).psnr
    panels[f"{name}\n{psnr:.1f} dB"] = result.image[0]
draw(output / "your_own_method.webp", panels)
