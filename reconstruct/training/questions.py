"""What a teacher is asked about: parts of photographs as they are, parts that are distorted, and mixtures of two parts.

A few photographs give many different questions where every part is distorted and mixed, as long as the teacher is asked
about what came out of it. Asano and Saeed 2021, "Extrapolating from a single image to a thousand classes using
distillation", have a single picture do; what ``distorted_part`` does is theirs, less shearing and solarising.

All are of 3 x H x W bytes, and depend on the generator that they draw from alone.
"""

from __future__ import annotations

import math

import numpy
from PIL import Image

from reconstruct.training.data import random_part, resize

AREA = (0.06, 1.0)
"""The area of a part as it is, as a share of the photograph's, drawn log-uniformly."""
WIDE_AREA = (0.01, 1.0)
TURN = 30.0
"""By how many degrees a distorted part is turned at most, either way."""
STRENGTH = (0.6, 1.4)
"""Factors of brightness, contrast and saturation."""
HUE = 0.1
"""By how much of a whole turn the hue changes at most, either way."""
GREY = 0.2
"""The share of distorted parts that lose their colours."""
LUMINANCE = numpy.array([0.299, 0.587, 0.114])


def plain_part(pixels: numpy.ndarray, side: int, draw: numpy.random.Generator) -> numpy.ndarray:
    """A part of a photograph as it is, resized to a square."""
    return resize(random_part(pixels, AREA, draw), (side, side))


def distorted_part(pixels: numpy.ndarray, side: int, draw: numpy.random.Generator) -> numpy.ndarray:
    """A part of a photograph of any size, resized to a square, turned, mirrored every other time and recoloured."""
    angle = draw.uniform(-TURN, TURN)
    reach = math.cos(math.radians(angle)) + abs(math.sin(math.radians(angle)))
    larger = math.ceil(side * reach) + 2
    part = turned(resize(random_part(pixels, WIDE_AREA, draw), (larger, larger)), angle, side)
    part = part[:, :, ::-1] if draw.random() < 0.5 else part
    return recoloured(part, draw)


def turned(pixels: numpy.ndarray, angle: float, side: int) -> numpy.ndarray:
    """The square of this side in the middle of a picture that is turned by so many degrees."""
    image = Image.fromarray(numpy.ascontiguousarray(pixels.transpose(1, 2, 0)))
    found = numpy.asarray(image.rotate(angle, Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    top, left = ((length - side) // 2 for length in found.shape[1:])
    return found[:, top : top + side, left : left + side]


def recoloured(pixels: numpy.ndarray, draw: numpy.random.Generator) -> numpy.ndarray:
    """A picture with another brightness, contrast, saturation and hue, or in grey: one affine map of its colours."""
    brightness, contrast, saturation = draw.uniform(*STRENGTH, 3)
    angle = 2 * math.pi * draw.uniform(-HUE, HUE)
    if draw.random() < GREY:
        saturation = 0.0
    # A hue is an angle around the axis of greys; Rodrigues' formula turns about it.
    grey, across = numpy.full((3, 3), 1 / 3), numpy.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    hue = grey + math.cos(angle) * (numpy.eye(3) - grey) + math.sin(angle) * across
    colours = saturation * hue + (1 - saturation) * LUMINANCE
    values = pixels.reshape(3, -1).astype(numpy.float32)
    middle = float(LUMINANCE @ values.mean(1))
    matrix = (brightness * contrast * colours).astype(numpy.float32)
    found = matrix @ values + numpy.float32(brightness * (1 - contrast) * middle)
    return found.round().clip(0, 255).astype(numpy.uint8).reshape(pixels.shape)


def mix(part: numpy.ndarray, other: numpy.ndarray, draw: numpy.random.Generator) -> numpy.ndarray:
    """A part with a rectangle of another of the same size, at the same place: up to half of the area, anywhere.

    Yun et al. 2019, "CutMix".
    """
    height, width = part.shape[1:]
    tall, wide = (max(1, round(length * draw.uniform(0.2, 0.5**0.5))) for length in (height, width))
    top, left = int(draw.integers(0, height - tall + 1)), int(draw.integers(0, width - wide + 1))
    mixture = part.copy()
    mixture[:, top : top + tall, left : left + wide] = other[:, top : top + tall, left : left + wide]
    return mixture


def blend(part: numpy.ndarray, other: numpy.ndarray, draw: numpy.random.Generator) -> numpy.ndarray:
    """Two parts of the same size over each other, the first with at least half of the weight.

    Zhang et al. 2018, "mixup".
    """
    weight = draw.uniform(0.5, 1)
    mixture = weight * part.astype(numpy.float32) + (1 - weight) * other.astype(numpy.float32)
    return mixture.round().astype(numpy.uint8)
