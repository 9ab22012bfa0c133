"""Training colours (numpy, cv2): transforms that change the pixels of a uint8 RGB image [H, W, 3], never its boxes."""
import cv2
import numpy as np

# NTSC: RGB -> luma Y and the colour plane I, Q, with the digits of DALI's Hsv
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])


class ColorJitter:
    """Brightness, contrast and saturation by a factor U(1 - a, 1 + a), hue by U(-a, a) turns; random order, all always.

    8-bit between the steps. Source: torchvision and MindSpore's RandomColorAdjust, both after Pillow; the defaults are
    the model zoo's, official/cv/SSD. hue 0 is no step.
    """

    def __init__(self, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.0):
        factors = (self.brighten, brightness), (self.stretch, contrast), (self.saturate, saturation)
        self.steps = [(step, 1 - amount, 1 + amount) for step, amount in factors]
        self.steps += [(turn_hue, -hue, hue)] if hue else []

    def __call__(self, image, boxes, labels, rng):
        for index in rng.permutation(len(self.steps)):
            step, low, high = self.steps[index]
            image = step(image, rng.uniform(low, high))
        return image, boxes, labels

    @staticmethod
    def brighten(image, factor):
        """image * factor."""
        return cv2.LUT(image, table(factor, 0))

    @staticmethod
    def stretch(image, factor):
        """Away from or towards the mean grey of the image."""
        return cv2.LUT(image, table(factor, (1 - factor) * round(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0])))

    @staticmethod
    def saturate(image, factor):
        """Away from or towards the grey of each pixel."""
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        return cv2.addWeighted(image, factor, grey, 1 - factor, 0)


class Distort:
    """Brightness, contrast, saturation and hue, each with probability 1/2; contrast comes second or last, 1/2 each.

    Each step is (function of image and amount, lowest amount, highest amount). Source: caffe ssd ApplyDistort, whose
    order PaddleDetection's RandomDistort has too; 8-bit between the steps as in caffe.
    """

    def __init__(self, brightness, contrast, saturation, hue):
        self.orders = (brightness, contrast, saturation, hue), (brightness, saturation, hue, contrast)

    def __call__(self, image, boxes, labels, rng):
        for step, low, high in self.orders[rng.integers(2)]:
            if rng.uniform() < 0.5:
                image = step(image, rng.uniform(low, high))
        return image, boxes, labels


class ColorTwist:
    """Hue, saturation, brightness and contrast of every image, as one matrix: exact until the one rounding at its end.

    hue: largest angle in degrees, either way; the others (low, high) of a factor, contrast's about grey 128. Source:
    NVIDIA DeepLearningExamples SSD v1.1, coco_pipeline.py (DALI Hsv, then BrightnessContrast).
    """

    def __init__(self, hue=0.5, saturation=(0.5, 1.5), brightness=(0.875, 1.125), contrast=(0.5, 1.5)):
        self.spans = (-hue, hue), saturation, brightness, contrast

    def __call__(self, image, boxes, labels, rng):
        return cv2.transform(image, self.matrix(*(rng.uniform(*span) for span in self.spans))), boxes, labels

    @staticmethod
    def matrix(hue, saturation, brightness, contrast):
        """[3, 4]: brightness * (128 + contrast * (colour - 128)), colour turned and stretched in the I, Q plane."""
        cosine, sine = saturation * np.cos(np.radians(hue)), saturation * np.sin(np.radians(hue))
        turn = np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]])
        color = np.linalg.inv(YIQ) @ turn @ YIQ
        return np.column_stack([brightness * contrast * color, np.full(3, brightness * 128 * (1 - contrast))])


def shift(image, amount):
    """image + amount of 0..255."""
    return cv2.LUT(image, table(1, amount))


def saturate_hsv(image, factor):
    """The S of HSV times factor."""
    return through_hsv(image, 0, factor)


def turn_hue(image, turns):
    """The H of HSV moved by a part of the colour circle, to within 1/500 of it: red by 1/3 is green."""
    return through_hsv(image, turns, 1)


def through_hsv(image, turns, factor):
    """image with its H moved and its S multiplied, 8 bits each."""
    levels = np.arange(256)
    # OpenCV counts a circle as 256 on the way to HSV and as 255 on the way back
    hues = np.rint((levels + 256 * turns) % 256 * (255 / 256)).astype(np.uint8)
    tables = np.stack([hues, table(factor, 0), table(1, 0)], axis=1)[None]
    return cv2.cvtColor(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL), tables), cv2.COLOR_HSV2RGB_FULL)


def table(factor, offset):
    """The 256 values of clip(value * factor + offset)."""
    return np.clip(np.arange(256) * factor + offset + 0.5, 0, 255).astype(np.uint8)
