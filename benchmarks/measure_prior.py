"""Measure the constants of the natural-image prior on photographs: mean, covariance of a pixel's RGB, spectrum.

    python benchmarks/measure_prior.py PHOTOGRAPH...

A check of reconstruct/prior/gaussian.py, which takes ImageNet's published colours. Nine photographs of
mate-backgrounds 1.26.0
(folder nature: Aqua, Blinds, Dune, Garden, LadyBird, Storm, TwoWings, Wood, YellowFlower) and nine of opencv-doc 4.6.0
(aloeL, baboon, building, butterfly, fruits, graf1, home, messi5, squirrel_cls) give the amplitude 1 / f^1.26.
"""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy

import reconstruct


def main(paths: list[str]) -> None:
    images = [reconstruct.load_image(path, 227).double().numpy() for path in paths]
    pixels = numpy.concatenate([image.reshape(3, -1) for image in images], axis=1)
    print("mean", pixels.mean(axis=1).round(3).tolist())
    print("covariance", numpy.cov(pixels).round(4).tolist())
    # Amplitude by frequency under a Hann window, a straight line through its logarithm.
    window = numpy.outer(numpy.hanning(227), numpy.hanning(227))
    down, right = numpy.meshgrid(numpy.fft.fftfreq(227), numpy.fft.fftfreq(227), indexing="ij")
    frequency = numpy.hypot(down, right)
    edges = numpy.geomspace(0.02, 0.35, 12)
    power = numpy.sum([abs(numpy.fft.fft2((each.mean(0) - each.mean()) * window)) ** 2 for each in images], axis=0)
    bands = [power[(frequency >= low) & (frequency < high)].mean() for low, high in pairwise(edges)]
    centres = numpy.sqrt(edges[1:] * edges[:-1])
    slope = numpy.polyfit(numpy.log(centres), 0.5 * numpy.log(bands), 1)[0]
    print(f"amplitude 1 / f^{-slope:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
