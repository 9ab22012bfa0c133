"""Encoded images -> RGB pixels (numpy and OpenCV), the same way in conversion, training, evaluation and prediction."""
import cv2
import numpy as np

from src.errors import DataError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")  # in any case


def decode_image(data, height=0, width=0):
    """Encoded bytes (or a [n] uint8 array) -> [H, W, 3] uint8 RGB, or None when they are no whole image.

    Grayscale, palette, CMYK, alpha and 16-bit files come out as 8-bit RGB. The EXIF orientation is applied, unless only
    the image without it has the given height and width: then boxes were drawn on the unrotated frame.
    """
    image = decode_rgb(data, cv2.IMREAD_COLOR_RGB)
    if height and width and image is not None and image.shape[:2] != (height, width):
        stored = decode_rgb(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        image = stored if stored.shape[:2] == (height, width) else image
    return image


def decode_rgb(data, flags):
    """OpenCV's decoder with None for whatever it cannot read, and without its own lines on stderr."""
    cv2.setLogLevel(0)
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # no bytes at all, or more pixels than OpenCV accepts
        return None


def read_image(path):
    """An image file -> [H, W, 3] uint8 RGB. Raises DataError naming the file."""
    try:
        with open(path, "rb") as file:
            image = decode_image(file.read())
    except OSError as error:
        raise DataError(f"image '{path}' cannot be read: {error.strerror}") from error
    if image is None:
        raise DataError(f"'{path}' is not an image that can be decoded, or it is cut short")
    return image
