"""A first inversion: the second layer's features, back to a picture.

The network has seen a photograph of a cat, and all that is left of it are the 192 feature maps of conv2. Method `map`
finds the most probable picture that has these features: fur and whiskers are back, and the two are hard to tell apart.
"""

from panels import PHOTOGRAPH, draw, output_folder

import reconstruct

SIZE = 131

output = output_folder(__doc__)
net = reconstruct.load_model("crelu_conv1_4")
image = reconstruct.load_image(PHOTOGRAPH, SIZE)[None]  # 1 x 3 x 131 x 131, in [0, 1]
features = net.features(image, "conv2")  # 1 x 192 x 31 x 31

result = reconstruct.invert(net, features, "conv2", size=SIZE, budget=150)

[psnr] = reconstruct.quality(image, result.image).psnr
draw(output / "first_inversion.webp", {"original": image[0], f"from conv2 by map\n{psnr:.1f} dB": result.image[0]})
