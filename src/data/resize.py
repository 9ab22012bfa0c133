"""How images of any size become the square that a network takes."""
import cv2
import numpy as np
from PIL import Image

INTERPOLATIONS = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA, "nearest": cv2.INTER_NEAREST,
                  "bicubic": cv2.INTER_CUBIC, "lanczos": cv2.INTER_LANCZOS4}  # of cv2.resize


def resize(image: np.ndarray, size: int, method: str = "bilinear") -> np.ndarray:
    """uint8 [H, W, 3] -> [size, size, 3]: the one resize of training, evaluation and prediction.

    method: of INTERPOLATIONS, or "antialias", which when it shrinks an image takes the mean of all pixels that fall
    together (Pillow's bilinear, as in torchvision's transforms), or "tensorflow", bilinear with the place in the image
    = the place in the result * H / size, without half a pixel (tf.image.resize of TensorFlow 1, and of its Object
    Detection API to this day). OpenCV rounds these places to 1/32 of a pixel.
    """
    if method == "antialias":
        return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    if method == "tensorflow":
        height, width = image.shape[:2]
        places = np.array([[width / size, 0, 0], [0, height / size, 0]])
        return cv2.warpAffine(image, places, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                              borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(image, (size, size), interpolation=INTERPOLATIONS[method])
