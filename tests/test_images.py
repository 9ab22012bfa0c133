"""Every kind of image file comes out as the right RGB pixels, everything else as None."""
import io

import cv2
import numpy as np
import pytest

from src.data.images import decode_image, read_image
from src.errors import DataError

Image = pytest.importorskip("PIL.Image")
RED, BLUE = (255, 0, 0), (0, 0, 255)


def encoded(image, kind="PNG", **options):
    """Bytes of a pillow image."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def two_colours(width=32, height=16):
    """RGB image, left half red, right half blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :width // 2], pixels[:, width // 2:] = RED, BLUE
    return Image.fromarray(pixels)


def test_png_is_exact_and_rgb():
    image = decode_image(encoded(two_colours()))
    assert image.shape == (16, 32, 3) and image.dtype == np.uint8
    assert tuple(image[0, 0]) == RED and tuple(image[0, 31]) == BLUE


@pytest.mark.parametrize("mode, kind", [
    ("RGB", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG"), ("RGB", "BMP")])
def test_colour_modes(mode, kind):
    image = decode_image(encoded(two_colours().convert(mode), kind))
    assert image.shape == (16, 32, 3)
    np.testing.assert_allclose(image[8, 4], RED, atol=6)
    np.testing.assert_allclose(image[8, 28], BLUE, atol=6)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grayscale_has_three_equal_channels(kind):
    image = decode_image(encoded(Image.new("L", (5, 4), 77), kind))
    assert image.shape == (4, 5, 3)
    assert (image == 77).all()


def test_16_bit_png_keeps_the_upper_byte():
    data = cv2.imencode(".png", np.full((3, 2), 0x8040, np.uint16))[1].tobytes()
    image = decode_image(data)
    assert image.dtype == np.uint8 and image.shape == (3, 2, 3)
    assert (image == 0x80).all()


def test_one_bit_and_one_pixel():
    assert (decode_image(encoded(Image.new("1", (3, 3), 1))) == 255).all()
    assert decode_image(encoded(Image.new("RGB", (1, 1), (9, 8, 7)))).tolist() == [[[9, 8, 7]]]


def rotated():
    """JPEG stored 16 high, 32 wide, left red; EXIF says: turn by 90 degrees clockwise, so red is shown on top."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(two_colours(), "JPEG", exif=exif, quality=95)


def test_exif_orientation_is_applied():
    for image in (decode_image(rotated()), decode_image(rotated(), 32, 16), decode_image(rotated(), 99, 99)):
        assert image.shape == (32, 16, 3)
        np.testing.assert_allclose(image[4, 8], RED, atol=6)
        np.testing.assert_allclose(image[28, 8], BLUE, atol=6)


def test_exif_orientation_is_left_out_when_the_boxes_were_drawn_without():
    image = decode_image(rotated(), 16, 32)
    assert image.shape == (16, 32, 3)
    np.testing.assert_allclose(image[8, 4], RED, atol=6)


def test_arrays_are_taken_like_bytes():
    data = encoded(two_colours())
    for array in (np.frombuffer(data, np.uint8), np.array([data + b"\0"])):  # MindDataset gives [1] of type S
        assert decode_image(array).shape == (16, 32, 3)


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff", encoded(two_colours(), "JPEG")[:400]])
def test_no_image_is_none(data, capfd):
    assert decode_image(data) is None
    assert capfd.readouterr().err == ""


def test_read_image_names_the_file(tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.jpg"
    good.write_bytes(encoded(two_colours()))
    bad.write_bytes(b"no")
    assert read_image(str(good)).shape == (16, 32, 3)
    with pytest.raises(DataError, match="bad.jpg"):
        read_image(str(bad))
    with pytest.raises(DataError, match="gone.jpg.*No such file"):
        read_image(str(tmp_path / "gone.jpg"))
