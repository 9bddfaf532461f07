"""Features that have been disturbed, and a method that is told of it.

Somebody may round features to 8 bits before sending them, or add noise. `disturb` does so and says how large the
disturbance is; given that, `map` weighs its prior by it. Without a word it takes the noise for part of the picture.
"""

from panels import PHOTOGRAPH, draw, output_folder

import reconstruct

SIZE = 99

output = output_folder(__doc__)
net = reconstruct.load_model("crelu_conv1_4")
image = reconstruct.load_image(PHOTOGRAPH, SIZE)[None]
exact = net.features(image, "conv2")

rounded, of_rounding = reconstruct.disturb(exact, quantise="int8")
noisy, of_noise = reconstruct.disturb(exact, noise=0.5, seed=0)
cases = {
    "exact features": (exact, 0.0),
    "rounded to 8 bits": (rounded, of_rounding),
    "50 % noise, told of it": (noisy, of_noise),
    "50 % noise, told of 1 %": (noisy, 0.01),
}
panels = {"original": image[0]}
for name, (features, told) in cases.items():
    result = reconstruct.invert(net, features, "conv2", size=SIZE, noise=told, budget=100)
    [psnr] = reconstruct.quality(image, result.image).psnr
    panels[f"{name}\n{psnr:.1f} dB"] = result.image[0]
draw(output / "noisy_features.webp", panels)
