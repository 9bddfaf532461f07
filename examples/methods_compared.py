"""Four methods side by side, on the same features of conv2.

`linear` goes back layer by layer, as the CReLU paper does, and loses most of the picture on the way. `wiener` solves
once through both layers together. `gradient` descends on the pixels, and `map` looks for the most probable picture
through the whole network: at the same work, counted in forward passes, it comes closest.
"""

from panels import PHOTOGRAPH, draw, output_folder

import reconstruct

SIZE = 115

output = output_folder(__doc__)
net = reconstruct.load_model("crelu_conv1_4")
image = reconstruct.load_image(PHOTOGRAPH, SIZE)[None]
features = net.features(image, "conv2")

panels = {"original": image[0]}
for method in ("linear", "wiener", "gradient", "map"):
    result = reconstruct.invert(net, features, "conv2", method, size=SIZE, budget=100)
    [psnr] = reconstruct.quality(image, result.image).psnr
    panels[f"{method}, {result.forward_passes[0]:.0f} passes\n{psnr:.1f} dB"] = result.image[0]
draw(output / "methods_compared.webp", panels)
