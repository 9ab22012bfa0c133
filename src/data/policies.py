"""Augmentation policies by name: after whom they are, with every number and probability as published there.

Where a source has a fault, what it meant is done and the fault named; docs/recipes.md has the table.
"""
from src.data.photometric import ColorJitter, ColorTwist, Distort, saturate_hsv, shift, turn_hue
from src.data.transforms import (
    EVERY_INTERPOLATION,
    GREY,
    Expand,
    ExpandThenCrop,
    HorizontalFlip,
    MinIoUCrop,
    Resize,
    all_exceed,
    all_reach,
    fitting_sides,
    fraction_sides,
    one_reaches,
    scaled_sides,
)


def build_policy(name, size, fill=GREY):
    """The named list of transforms for a network input of size x size.

    fill: RGB 0..255 around an expanded image, the mean that the network subtracts.
    """
    policies = {
        "zoo": [MinIoUCrop(), Resize(size), HorizontalFlip(), ColorJitter()],
        "ssd": ssd(size, fill),
        "paddle": paddle(size, fill),
        "mlperf": mlperf(size),
        "nvidia": nvidia(size),
        "flip": [Resize(size), HorizontalFlip(), ColorJitter()],
        "plain": [Resize(size)],
    }
    return policies[name]


def ssd(size, fill):
    """The SSD paper's, by the authors' code: weiliu89/caffe branch ssd, examples/ssd/ssd_coco.py and im_transforms.cpp.

    caffe draws one crop a sampler and takes any of those that it found: the same as the first found of a random order.
    Hue is +-18 degrees as in the ports (torchvision, lufficc/SSD): caffe adds +-18 to OpenCV's hue of 180 a circle, so
    it turns by 36 degrees, and stops at 0 instead of going round. Also corrected: a crop holds the centre of some
    object (caffe's may hold none, and then trains nothing).
    """
    distort = Distort((shift, -32, 32), (ColorJitter.brighten, 0.5, 1.5), (saturate_hsv, 0.5, 1.5),
                      (turn_hue, -18 / 360, 18 / 360))
    crop = MinIoUCrop((None, 0.1, 0.3, 0.5, 0.7, 0.9, 0), 50, one_reaches, scaled_sides, shuffled=True, at_once=50)
    return [ExpandThenCrop(Expand(fill), crop, distort), Resize(size, EVERY_INTERPOLATION), HorizontalFlip()]


def paddle(size, fill):
    """PaddleDetection configs/ssd/_base_/ssd_mobilenet_reader.yml, its colours in Pillow's formulas as in release/0.3.

    Hue moves by +-18 of 256, 25 degrees. Corrected: the configuration's brightness [0.5, 1.125, 0.875] is misordered,
    what is meant is low .875, high 1.125, probability .5; and "allow_no_crop: Fasle", read as true, means false.
    """
    distort = Distort((ColorJitter.brighten, 0.875, 1.125), (ColorJitter.stretch, 0.5, 1.5),
                      (ColorJitter.saturate, 0.5, 1.5), (turn_hue, -18 / 256, 18 / 256))
    crop = MinIoUCrop((0, 0.1, 0.3, 0.5, 0.7, 0.9), 50, one_reaches, fitting_sides, shuffled=True, at_once=50)
    return [distort, ExpandThenCrop(Expand(fill), crop), Resize(size), HorizontalFlip()]


def mlperf(size):
    """MLPerf training v0.7 single_stage_detector/ssd/utils.py: SSDCropping, flip, resize, torchvision's ColorJitter.

    -1 is its crop without a condition, which a box outside the crop does not spoil. Corrected: boxes are counted from
    the whole pixels that are cut out (there up to a pixel off).
    """
    crop = MinIoUCrop((None, 0.1, 0.3, 0.5, 0.7, 0.9, -1), 1, all_exceed, fraction_sides)
    return [crop, Resize(size), HorizontalFlip(), ColorJitter(0.125, 0.5, 0.5, 0.05)]


def nvidia(size):
    """NVIDIA DeepLearningExamples PyTorch/Detection/SSD v1.1, coco_pipeline.py (DALI).

    Its hue of +-0.5 degrees changes next to nothing but is what was trained with. Not taken over: DALI's smoothing when
    it shrinks an image, because evaluation does not smooth.
    """
    crop = MinIoUCrop((None, 0, 0.1, 0.3, 0.5, 0.7, 0.9), 1, all_reach, fraction_sides)
    return [crop, Resize(size), HorizontalFlip(), ColorTwist()]
