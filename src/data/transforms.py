"""Training augmentation (numpy, cv2). An image is uint8 RGB [H, W, 3], boxes [N, 4] are corner fractions of it."""
import cv2
import numpy as np

from src import boxes as box_ops

SMALLEST_PIXELS = 1.0  # a box that a crop leaves narrower than this, in network pixels, is no training target


class MinIoUCrop:
    """Random crop that keeps an overlap with the objects; boxes stay when their centre is inside.

    A minimal IoU is drawn from `choices` (None keeps the whole image), then up to `trials` crops with sides U(.3, 1) of
    the image and aspect ratio .5..2; one is refused when it touches no box, or when some box overlaps it less than the
    minimum while another overlaps it more than minimum + .2. Source: model zoo official/cv/SSD, random_sample_crop
    (SSD paper section 2.2 has the idea). An image without boxes is left whole.
    """

    def __init__(self, choices=(None, 0.1, 0.3, 0.5, 0.7, 0.9), trials=50):
        self.choices = choices
        self.trials = trials

    def __call__(self, image, boxes, labels, rng):
        if len(boxes) == 0:
            return image, boxes, labels
        height, width = image.shape[:2]
        while True:
            minimum = self.choices[rng.integers(len(self.choices))]
            if minimum is None:
                return image, boxes, labels
            for _ in range(self.trials):
                crop = self.draw(height, width, rng)
                if crop is None:
                    continue
                region = crop / (width, height, width, height)
                overlap = box_ops.iou(boxes, region[None])[:, 0]
                center = (boxes[:, :2] + boxes[:, 2:]) / 2
                inside = ((center > region[:2]) & (center < region[2:])).all(axis=1)
                if not inside.any() or (overlap.min() < minimum and overlap.max() > minimum + 0.2):
                    continue
                x1, y1, x2, y2 = crop
                origin, extent = np.tile(region[:2], 2), np.tile(region[2:] - region[:2], 2)
                kept = np.clip((boxes[inside] - origin) / extent, 0, 1).astype(np.float32)
                return image[y1:y2, x1:x2], kept, labels[inside]

    @staticmethod
    def draw(height, width, rng):
        """A crop x1, y1, x2, y2 in whole pixels, or None when its aspect ratio is outside .5..2."""
        w, h = rng.uniform(0.3, 1.0) * width, rng.uniform(0.3, 1.0) * height
        if not 0.5 <= h / w <= 2:
            return None
        x1, y1 = rng.uniform() * (width - w), rng.uniform() * (height - h)
        crop = np.array([x1, y1, x1 + w, y1 + h]).astype(int)
        return crop if crop[2] > crop[0] and crop[3] > crop[1] else None


class Resize:
    """Stretches to a square of `size` pixels, bilinear, aspect ratio not kept (the published SSD input)."""

    def __init__(self, size):
        self.size = size

    def __call__(self, image, boxes, labels, rng):
        return resize(image, self.size), boxes, labels


class HorizontalFlip:
    """Mirrors image and boxes with probability 1/2."""

    def __call__(self, image, boxes, labels, rng):
        if rng.uniform() < 0.5:
            return image, boxes, labels
        x1, y1, x2, y2 = boxes.T
        return image[:, ::-1], np.stack([1 - x2, y1, 1 - x1, y2], axis=1), labels


class ColorJitter:
    """Brightness, contrast and saturation, each by a factor U(1 - a, 1 + a), in random order, 8-bit between the steps.

    Source: model zoo official/cv/SSD, RandomColorAdjust(brightness=.4, contrast=.4, saturation=.4).
    """

    def __init__(self, brightness=0.4, contrast=0.4, saturation=0.4):
        self.steps = ((self.brighten, brightness), (self.stretch, contrast), (self.saturate, saturation))

    def __call__(self, image, boxes, labels, rng):
        image = np.ascontiguousarray(image)
        for index in rng.permutation(len(self.steps)):
            step, amount = self.steps[index]
            image = step(image, rng.uniform(1 - amount, 1 + amount))
        return image, boxes, labels

    @staticmethod
    def brighten(image, factor):
        """image * factor."""
        return cv2.LUT(image, table(factor, 0))

    @staticmethod
    def stretch(image, factor):
        """Away from or towards the mean grey of the image."""
        return cv2.LUT(image, table(factor, (1 - factor) * round(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean())))

    @staticmethod
    def saturate(image, factor):
        """Away from or towards the grey of each pixel."""
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        return cv2.addWeighted(image, factor, grey, 1 - factor, 0)


def table(factor, offset):
    """The 256 values of clip(value * factor + offset)."""
    return np.clip(np.arange(256) * factor + offset + 0.5, 0, 255).astype(np.uint8)


def resize(image, size):
    """uint8 [H, W, 3] -> [size, size, 3], bilinear: the one resize of training, evaluation and prediction."""
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)


def build_policy(name, size):
    """The named list of transforms for a network input of size x size."""
    policies = {
        "zoo": [MinIoUCrop(), Resize(size), HorizontalFlip(), ColorJitter()],
        "flip": [Resize(size), HorizontalFlip(), ColorJitter()],
        "plain": [Resize(size)],
    }
    return policies[name]


def augment(image, boxes, labels, policy, size, rng):
    """Runs a policy; boxes that end up under one network pixel are dropped. Returns image, boxes, labels."""
    for transform in policy:
        image, boxes, labels = transform(image, boxes, labels, rng)
    kept = ((boxes[:, 2:] - boxes[:, :2]) * size >= SMALLEST_PIXELS).all(axis=1)
    return np.ascontiguousarray(image), boxes[kept], labels[kept]
