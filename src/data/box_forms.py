"""Notices annotation files that write boxes in another form than the one they are read in."""
from __future__ import annotations

from dataclasses import dataclass

SIZE_FORM, CORNER_FORM = "x, y, w, h", "x1, y1, x2, y2"


@dataclass
class BoxForms:
    """Counts what the four numbers of each box could be."""
    corners: bool = False  # the format writes x1, y1, x2, y2, not x, y, w, h; readers set it
    boxes: int = 0         # counted so far
    fractions: int = 0     # all four numbers lie in 0..1
    other: int = 0         # inside the image when read in the other form
    only_other: int = 0    # inside the image in no other way

    def count(self, pixels: tuple[float, ...], size: tuple[int, int]) -> None:
        """Counts one box. pixels: x, y, w, h as read; size: height, width of its image."""
        x, y, w, h = pixels
        as_read = (x, y, x + w, y + h)
        written = as_read if self.corners else pixels
        as_other = (x, y, x + written[2], y + written[3]) if self.corners else pixels
        self.boxes += 1
        self.fractions += all(0 <= value <= 1 for value in written) and max(written) > 0
        if fits(as_other, size):
            self.other += 1
            self.only_other += not fits(as_read, size)

    def other_form(self) -> str:
        """In which other form most boxes seem to be written, in words; "" for none."""
        read, other = (CORNER_FORM, SIZE_FORM) if self.corners else (SIZE_FORM, CORNER_FORM)
        # a few boxes with swapped corners do not make another form
        most = self.only_other > self.boxes / 2 if self.corners else self.only_other >= self.boxes / 2
        if 2 * self.fractions > self.boxes:
            found = ("fractions of the image (or, as YOLO writes them, centre, width and height); write pixels as "
                     f"{read}")
        elif self.boxes and most and self.other >= 0.9 * self.boxes:
            found = f"{other}; write them as {read}"
        else:
            return ""
        return f"boxes are read as {read} in pixels, but most look like {found}"


def fits(corners: tuple[float, ...], size: tuple[int, int]) -> bool:
    """Whether x1, y1, x2, y2 are a box inside an image of height, width, with a pixel of tolerance."""
    (left, top, right, bottom), (height, width) = corners, size
    return min(left, top) >= 0 and left < right <= width + 1 and top < bottom <= height + 1
