"""Your own network, residual block and all.

Any torch module can be inverted: `from_torch` copies it, runs it once, and knows its layers by their names in the
module. The stem is a chain of convolutions; the block adds its input to its output, so `map` differentiates through it.
The weights are random: a picture comes through untrained layers, too.
"""

import torch
from panels import PHOTOGRAPH, draw, output_folder
from torch import nn

import reconstruct

SIZE = 80


class Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = values + self.second(self.first(values).relu())
        return added.relu()


output = output_folder(__doc__)
torch.manual_seed(0)
stem = nn.Sequential(nn.Conv2d(3, 32, 5, stride=2, padding=2), nn.ReLU())
module = nn.Sequential(stem, Block(32), nn.MaxPool2d(2), Block(32))
net = reconstruct.from_torch(module, normalise=((0.48, 0.46, 0.41), (0.23, 0.22, 0.23)), input_size=SIZE)
image = reconstruct.load_image(PHOTOGRAPH, SIZE)[None]

panels = {"original": image[0]}
for layer, name in {"0": "the stem", "1": "the first block", "2": "the pooling", "3": "the second block"}.items():
    result = reconstruct.invert(net, net.features(image, layer), layer, budget=60)
    [psnr] = reconstruct.quality(image, result.image).psnr
    panels[f"from {name}\n{psnr:.1f} dB"] = result.image[0]
draw(output / "your_own_network.webp", panels)
