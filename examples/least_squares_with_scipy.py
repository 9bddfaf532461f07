"""A layer as a SciPy operator, and SciPy's own solver on it.

conv1 is affine in the picture: its responses are J x + offset. `linear_operator` gives J as a `LinearOperator`, which
every solver and decomposition of SciPy takes. Each iteration of `lsqr` applies J and its transpose once. Edges come
back first and flat surfaces last: the filters hardly feel those, so J is ill-conditioned.
"""

import torch
from panels import PHOTOGRAPH, draw, output_folder
from scipy.sparse.linalg import lsqr

import reconstruct

SIZE = 99

output = output_folder(__doc__)
net = reconstruct.load_model("crelu_conv1_4")
image = reconstruct.load_image(PHOTOGRAPH, SIZE)[None]
responses = net.responses(image, "conv1").double().numpy().ravel()

J = reconstruct.linear_operator(net, "conv1", SIZE)  # 50,784 responses x 29,403 pixels
panels = {"original": image[0]}
for iterations in (3, 10, 30, 100):
    found = lsqr(J, responses - J.offset, iter_lim=iterations)[0]
    picture = torch.from_numpy(found.reshape(1, *J.image_shape))
    [psnr] = reconstruct.quality(image, picture.float()).psnr
    panels[f"{iterations} iterations\n{psnr:.1f} dB"] = picture[0]
draw(output / "least_squares_with_scipy.webp", panels)
