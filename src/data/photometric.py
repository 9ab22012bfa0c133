"""Photometric distortion (numpy, cv2): transforms that change the colours of a Sample, never its boxes.

The functions take and return a uint8 RGB image [H, W, 3].
"""
from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from src.data.transforms import Sample

# NTSC: RGB -> luma Y and the colour plane I, Q, with the digits of DALI's Hsv
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])


class ColorStep(NamedTuple):
    """A change of colours by a random amount U(low, high)."""
    adjust: Callable[[np.ndarray, float], np.ndarray]
    low: float
    high: float


class ColorJitter:
    """Brightness, contrast and saturation by a factor U(1 - a, 1 + a), hue by U(-a, a) turns; random order, all always.

    8-bit between the steps. Source: torchvision and MindSpore's RandomColorAdjust, both after Pillow; the defaults are
    the model zoo's, official/cv/SSD. hue 0: without that step.
    """

    def __init__(self, *, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.0):
        self.steps = [ColorStep(adjust_brightness, 1 - brightness, 1 + brightness),
                      ColorStep(adjust_contrast, 1 - contrast, 1 + contrast),
                      ColorStep(adjust_saturation, 1 - saturation, 1 + saturation)]
        if hue:
            self.steps.append(ColorStep(adjust_hue, -hue, hue))

    def __call__(self, sample: Sample, rng: Generator) -> Sample:
        image = sample.image
        for index in rng.permutation(len(self.steps)):
            adjust, low, high = self.steps[index]
            image = adjust(image, rng.uniform(low, high))
        return sample._replace(image=image)


class PhotometricDistort:
    """Brightness, contrast, saturation and hue, each with probability 1/2; contrast comes second or last, 1/2 each.

    8-bit between the steps as in caffe, but saturation and hue of HSV share one way there and back.
    Source: caffe ssd ApplyDistort; PaddleDetection's RandomDistort has its order.
    """

    def __init__(self, *, brightness: ColorStep, contrast: ColorStep, saturation: ColorStep, hue: ColorStep):
        self.orders = (brightness, contrast, saturation, hue), (brightness, saturation, hue, contrast)

    def __call__(self, sample: Sample, rng: Generator) -> Sample:
        image, order = sample.image, self.orders[rng.integers(2)]
        drawn = [(adjust, rng.uniform(low, high)) for adjust, low, high in order if rng.uniform() < 0.5]
        for in_hsv, steps in itertools.groupby(drawn, key=lambda step: step[0] in HSV_STEPS):
            if in_hsv:  # one way to HSV and back for both
                image = adjust_hsv(image, **{HSV_STEPS[adjust]: amount for adjust, amount in steps})
            else:
                for adjust, amount in steps:
                    image = adjust(image, amount)
        return sample._replace(image=image)


class ColorTwist:
    """Hue, saturation, brightness and contrast of every image, as one matrix: exact until the one rounding at its end.

    Source: NVIDIA DeepLearningExamples SSD v1.1, coco_pipeline.py (DALI Hsv, then BrightnessContrast).
    """
    ranges = {"hue": (-0.5, 0.5),  # degrees
              "saturation": (0.5, 1.5), "brightness": (0.875, 1.125), "contrast": (0.5, 1.5)}  # factors

    def __call__(self, sample: Sample, rng: Generator) -> Sample:
        amounts = {name: rng.uniform(low, high) for name, (low, high) in self.ranges.items()}
        return sample._replace(image=cv2.transform(sample.image, twist_matrix(**amounts)))


def twist_matrix(*, hue: float, saturation: float, brightness: float, contrast: float) -> np.ndarray:
    """[3, 4]: brightness * (128 + contrast * (colour - 128)), colour turned and stretched in the I, Q plane."""
    cosine, sine = saturation * np.cos(np.radians(hue)), saturation * np.sin(np.radians(hue))
    turn = np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]])
    color = np.linalg.inv(YIQ) @ turn @ YIQ
    return np.column_stack([brightness * contrast * color, np.full(3, brightness * 128 * (1 - contrast))])


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """image * factor."""
    return adjust_levels(image, factor, 0)


def add_brightness(image: np.ndarray, amount: float) -> np.ndarray:
    """image + amount of 0..255."""
    return adjust_levels(image, 1, amount)


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from or towards the mean grey of the image."""
    mean = round(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0])
    return adjust_levels(image, factor, (1 - factor) * mean)


def adjust_levels(image: np.ndarray, factor: float, offset: float) -> np.ndarray:
    """image * factor + offset; half the time of a look-up table."""
    return cv2.addWeighted(image, factor, image, 0, offset)


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from or towards the grey of each pixel."""
    return cv2.transform(image, factor * np.eye(3) + (1 - factor) * YIQ[0])


def adjust_hsv_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """The S of HSV times factor."""
    return adjust_hsv(image, factor=factor)


def adjust_hue(image: np.ndarray, turns: float) -> np.ndarray:
    """The H of HSV moved by a part of the colour circle, to within 1/500 of it: red by 1/3 is green."""
    return adjust_hsv(image, turns=turns)


def adjust_hsv(image: np.ndarray, *, turns: float = 0, factor: float = 1) -> np.ndarray:
    """image with its H moved and its S multiplied, 8 bits each."""
    levels = np.arange(256)
    # OpenCV counts a circle as 256 on the way to HSV and as 255 on the way back
    hues = np.rint((levels + 256 * turns) % 256 * (255 / 256)).astype(np.uint8)
    tables = np.stack([hues, lookup_table(factor, 0), lookup_table(1, 0)], axis=1)[None]  # [1, 256, 3]
    return cv2.cvtColor(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL), tables), cv2.COLOR_HSV2RGB_FULL)


def lookup_table(factor: float, offset: float) -> np.ndarray:
    """The 256 values of clip(value * factor + offset)."""
    return np.clip(np.arange(256) * factor + offset + 0.5, 0, 255).astype(np.uint8)


HSV_STEPS = {adjust_hsv_saturation: "factor", adjust_hue: "turns"}  # and what each of them gives to adjust_hsv
