"""Undoing CReLU is a subtraction.

CReLU keeps the positive and the negative phase of a filter's response in two maps. The first minus the second is the
response itself, without any error, and so the first layer comes back by linear algebra alone. Red is positive and blue
negative. ReLU keeps the first map only: what is blue here would be lost.
"""

from panels import PHOTOGRAPH, draw, output_folder

import reconstruct

SIZE, FILTER = 179, 1

output = output_folder(__doc__)
net = reconstruct.load_model("crelu_conv1_4")
image = reconstruct.load_image(PHOTOGRAPH, SIZE)[None]
features = net.features(image, "conv1")  # 96 positive phases, then 96 negative ones
positive, negative = features.chunk(2, dim=1)

responses = reconstruct.linear_responses(features, "crelu")  # positive - negative
wrong = (responses - net.responses(image, "conv1")).abs().max()
result = reconstruct.invert(net, features, "conv1", "linear", size=SIZE, budget=100)
[psnr] = reconstruct.quality(image, result.image).psnr

panels = {
    "original": image[0],
    "positive phase": positive[0, FILTER],
    "negative phase": negative[0, FILTER],
    f"their difference\nlargest error {wrong:g}": responses[0, FILTER],
    f"from all 96 differences\nby linear, {psnr:.1f} dB": result.image[0],
}
draw(output / "phases_of_crelu.webp", panels)
