"""Augmentation policies by name: after whom they are, with every number and probability as published there.

Where a source has a fault, what it meant is done and the fault named; docs/recipes.md has the table.
"""
from __future__ import annotations

from src.data import photometric, transforms
from src.data.photometric import ColorJitter, ColorStep, ColorTwist, PhotometricDistort
from src.data.resize import INTERPOLATIONS
from src.data.transforms import (
    GREY,
    Expand,
    ExpandThenCrop,
    HorizontalFlip,
    MinIoUCrop,
    Resize,
    ScaleJitter,
    Transform,
)


def build_policy(name: str, size: int, fill: tuple[float, ...] = GREY) -> list[Transform]:
    """The named list of transforms for a network input of size x size.

    fill: RGB 0..255 around an expanded image, the mean that the network subtracts.
    """
    policies = {
        "zoo": [MinIoUCrop(), Resize(size), HorizontalFlip(), ColorJitter()],
        "ssd": ssd(size, fill),
        "paddle": paddle(size, fill),
        "mlperf": mlperf(size),
        "nvidia": nvidia(size),
        "tensorflow": tensorflow(size),
        "jitter": jitter(size, fill),
        "flip": [Resize(size), HorizontalFlip(), ColorJitter()],
        "plain": [Resize(size)],
    }
    return policies[name]


def ssd(size: int, fill: tuple[float, ...]) -> list[Transform]:
    """The SSD paper's, by the authors' code: weiliu89/caffe branch ssd, examples/ssd/ssd_coco.py and im_transforms.cpp.

    caffe draws one crop a sampler and takes any of those that it found: the same as the first found of a random order.
    Hue is +-18 degrees as in the ports (torchvision, lufficc/SSD): caffe adds +-18 to OpenCV's hue of 180 a circle, so
    it turns by 36 degrees, and stops at 0 instead of going round. Also corrected: a crop holds the centre of some
    object (caffe's may hold none, and then trains nothing).
    """
    distort = PhotometricDistort(brightness=ColorStep(photometric.add_brightness, -32, 32),
                                 contrast=ColorStep(photometric.adjust_brightness, 0.5, 1.5),
                                 saturation=ColorStep(photometric.adjust_hsv_saturation, 0.5, 1.5),
                                 hue=ColorStep(photometric.adjust_hue, -18 / 360, 18 / 360))
    crop = MinIoUCrop(min_ious=(None, 0.1, 0.3, 0.5, 0.7, 0.9, 0), accepts=transforms.any_reaches,
                      draw_sides=transforms.scaled_sides, shuffled=True, at_once=50)
    resize = Resize(size, interpolations=tuple(INTERPOLATIONS))
    return [ExpandThenCrop(Expand(fill), crop, distort), resize, HorizontalFlip()]


def paddle(size: int, fill: tuple[float, ...]) -> list[Transform]:
    """PaddleDetection configs/ssd/_base_/ssd_mobilenet_reader.yml, its colours in Pillow's formulas as in release/0.3.

    Hue moves by +-18 of 256, 25 degrees. Corrected: the configuration's brightness [0.5, 1.125, 0.875] is misordered,
    what is meant is low .875, high 1.125, probability .5; and "allow_no_crop: Fasle", read as true, means false.
    """
    distort = PhotometricDistort(brightness=ColorStep(photometric.adjust_brightness, 0.875, 1.125),
                                 contrast=ColorStep(photometric.adjust_contrast, 0.5, 1.5),
                                 saturation=ColorStep(photometric.adjust_saturation, 0.5, 1.5),
                                 hue=ColorStep(photometric.adjust_hue, -18 / 256, 18 / 256))
    crop = MinIoUCrop(min_ious=(0, 0.1, 0.3, 0.5, 0.7, 0.9), accepts=transforms.any_reaches,
                      draw_sides=transforms.fitting_sides, shuffled=True, at_once=50)
    return [distort, ExpandThenCrop(Expand(fill), crop), Resize(size), HorizontalFlip()]


def mlperf(size: int) -> list[Transform]:
    """MLPerf training v0.7 single_stage_detector/ssd/utils.py: SSDCropping, flip, resize, torchvision's ColorJitter.

    -1 is its crop without a condition, which a box outside the crop does not spoil. Corrected: boxes are counted from
    the pixels that are cut out (there up to a pixel off).
    """
    crop = MinIoUCrop(min_ious=(None, 0.1, 0.3, 0.5, 0.7, 0.9, -1), trials=1, accepts=transforms.all_exceed,
                      draw_sides=transforms.fraction_sides)
    colors = ColorJitter(brightness=0.125, contrast=0.5, saturation=0.5, hue=0.05)
    return [crop, Resize(size), HorizontalFlip(), colors]


def nvidia(size: int) -> list[Transform]:
    """NVIDIA DeepLearningExamples PyTorch/Detection/SSD v1.1, coco_pipeline.py (DALI).

    Its hue of +-0.5 degrees changes next to nothing but is what was trained with. Not taken over: DALI's smoothing when
    it shrinks an image, because evaluation does not smooth.
    """
    crop = MinIoUCrop(min_ious=(None, 0, 0.1, 0.3, 0.5, 0.7, 0.9), trials=1, accepts=transforms.all_reach,
                      draw_sides=transforms.fraction_sides)
    return [crop, Resize(size), HorizontalFlip(), ColorTwist()]


def tensorflow(size: int) -> list[Transform]:
    """TensorFlow Object Detection API, ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8.config: large crops, no colours.

    There a box stays that touches the crop, here one whose centre is in it.
    """
    crop = MinIoUCrop(min_ious=(0,), trials=100, accepts=transforms.any_reaches, draw_sides=transforms.large_sides,
                      shuffled=True, at_once=25)
    return [crop, Resize(size), HorizontalFlip()]


def jitter(size: int, fill: tuple[float, ...]) -> list[Transform]:
    """Large-scale jitter, https://arxiv.org/abs/2012.07177 section 3, in the numbers of this repository.

    The paper (and torchvision's ScaleJitter) draws the scale uniformly of .1..2 for an input of 1024 pixels. On 300 a
    tenth leaves nothing of most objects, so it is .5..2 here, log-uniform. The change of the aspect ratio is ours, and
    so are the colours: half of what `zoo` does.
    """
    return [ScaleJitter(fill), Resize(size), HorizontalFlip(),
            ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2)]
