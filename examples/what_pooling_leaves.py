"""What max-pooling leaves of a picture.

A max-pooling keeps the largest of each window of responses and forgets where it was. `map` inverts the layer below the
pooling and the pooling itself, at the same work. Without the places the picture is further off, but only a little:
neighbouring windows overlap, and 192 maps say much of what one of them leaves out.
"""

from panels import PHOTOGRAPH, draw, output_folder

import reconstruct

SIZE = 40

output = output_folder(__doc__)
net = reconstruct.load_model("convpool_cnn_c_crelu")
image = reconstruct.load_image(PHOTOGRAPH, SIZE)[None]

panels = {"original": image[0]}
for layer, name in {"conv3": "from conv3", "pool1": "after pool1, 3 x 3 by 2"}.items():
    features = net.features(image, layer)
    result = reconstruct.invert(net, features, layer, size=SIZE, budget=60)
    [psnr] = reconstruct.quality(image, result.image).psnr
    panels[f"{name}\n{psnr:.1f} dB"] = result.image[0]
draw(output / "what_pooling_leaves.webp", panels)
