"""Valid small files -> damaged ones: bytes, words and structures changed at places that hypothesis draws.

An edit is (kind, place, value), three whole numbers that fit any file: each counts modulo what there is to choose from.
Few edits of a valid file reach deeper into a reader than noise does, and a failing list of them shrinks well.
"""
import copy
import json
import re
import struct
from xml.sax.saxutils import escape

from hypothesis import strategies as st

EDITS = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 65535), st.integers(0, 65535)), max_size=3)
NUMBERS = (0, 1, 127, 255, 32767, 65535, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 40, 2 ** 63 - 1, 2 ** 63, 2 ** 64 - 1)
PIECES = (b"\0", b"\xff", b"\0" * 64, b"\xff" * 16, b"\n", b"\r\n", b" ", b"\t", b'"', b"'", b"<", b"]", b"{",
          b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\x80", b"-", b"9" * 30, b"NaN", b"1e999", b"../" * 9, b"%s%n",
          b"\x1b[2J")
# what a reader may meet where it expects something else
ODD = (None, True, False, 0, -1, 1, 7, 0.5, -0.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf"),
       2 ** 31, 2 ** 63, -2 ** 63, 2 ** 64, 10 ** 30, 10 ** 400, "", " ", "\0", "a\0b", "\n", "\ud800", "\udcff",
       "\u202e", "\x1b[2J", "a" * 5000, "../../../etc/passwd", "/etc/passwd", "/dev/zero", "C:\\x\\y.jpg",
       "1", "-1", "1e999", "NaN", "0x10", "1_000", "true", "None", "\N{FULLWIDTH DIGIT THREE}", "\N{SUPERSCRIPT TWO}",
       [], {}, [[]], [None], [0, 0], [1, 2, 3, 4], [-5, -5, 1e9, 1e9], [[1, 2], [3, 4]], {"a": None}, {"": []},
       [[[[[[[[]]]]]]]], ["\0"] * 3, list(range(500)))
WORDS = (*(word for word in ODD if isinstance(word, str)), *"& < > [ ] { } : , ' # % ~ *a &a 1e308 -0 inf".split(),
         '"', "\t", "\r", "? ", "- ", "9" * 5000, "[" * 3000, "{a: " * 1000, "<a>" * 2000, "2024-99-99", "!!int x",
         "!!float x", "!!bool x", "!!binary x", "!!timestamp 2024-99-99", "!!python/object:os.system")


def overwrite(data: bytearray, place: int, value: int) -> None:
    """Puts one of NUMBERS, in one of several sizes and orders, at a place."""
    form = ("<I", ">I", "<Q", "<H", ">H")[value // 16 % 5]
    size = struct.calcsize(form)
    data[place:place + size] = struct.pack(form, NUMBERS[value % len(NUMBERS)] % (1 << 8 * size))


def exchange(data: bytearray, place: int, value: int) -> None:
    """Swaps eight bytes with eight others."""
    other = value * max(len(data), 1) // 65536
    data[place:place + 8], data[other:other + 8] = data[other:other + 8], data[place:place + 8]


def flip(data: bytearray, place: int, value: int) -> None:
    """Changes a bit, or with a large value all of a byte."""
    if data:
        data[place] = data[place] ^ 1 << value % 8 if value < 40000 else value % 256


def edit_bytes(data: bytes, edits: list, others: tuple = ()) -> bytes:
    """Flips, cuts, inserts, repeats, moves and overwrites. others: files whose ends may replace this one's."""
    data = bytearray(data)
    for kind, place, value in edits:
        start, length = place * len(data) // 65536, 1 + value % 64
        match kind % 10:
            case 0 | 1 | 2:
                flip(data, start, value)
            case 3:
                del data[start:]
            case 4:
                del data[start:start + length]
            case 5:
                data[start:start] = PIECES[value % len(PIECES)]
            case 6:
                data[start:start] = data[start:start + length]
            case 7:
                overwrite(data, start, value)
            case 8:
                exchange(data, start, value)
            case 9 if others:
                other = others[value % len(others)]
                data[start:] = other[len(other) * place // 65536:]
    return bytes(data)


def edit_words(text: str, edits: list) -> str:
    """A text whose words, numbers and signs are replaced, left out, repeated, moved or joined."""
    words = re.findall(r"\w+|\s+|.", text)
    for kind, place, value in edits:
        if not words:
            return text
        start, other = place % len(words), value % len(words)
        match kind % 6:
            case 0 | 1 | 2:
                words[start] = WORDS[value % len(WORDS)]
            case 3:
                del words[start : start + 1 + value % 3]
            case 4:
                words[start:start] = words[start : start + 1 + value % 20]
            case 5:
                words[start], words[other] = words[other], words[start]
    return "".join(words)


def places_of(tree, found=None):
    """All (container, key) of a tree of dicts and lists."""
    found = [] if found is None else found
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        found.append((tree, key))
        if isinstance(value, (dict, list)):
            places_of(value, found)
    return found


def edit_tree(tree, edits: list):
    """A copy of a dict or list with values replaced, keys left out or renamed, entries repeated, values swapped."""
    tree = copy.deepcopy(tree)
    for kind, place, value in edits:
        places = places_of(tree)
        if not places:
            break
        holder, key = places[place % len(places)]
        match kind % 7:
            case 0 | 1 | 2:
                holder[key] = copy.deepcopy(ODD[value % len(ODD)])
            case 3:
                del holder[key]
            case 4 if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
            case 4:
                name = ODD[value % len(ODD)]
                holder[name if isinstance(name, str) else "x"] = holder.pop(key)
            case 5:
                there, other = places[value % len(places)]
                holder[key] = copy.deepcopy(there[other])
            case 6:
                holder[key] = [copy.deepcopy(holder[key])] * (1 + value % 3)
    return tree


def to_xml(tree, tag: str = "annotation") -> str:
    """XML of a tree of dicts and lists: a key is a tag, an entry of a list a tag that is repeated."""
    if isinstance(tree, list):
        return "".join(to_xml(entry, tag) for entry in tree)
    inside = "".join(to_xml(value, key) for key, value in tree.items()) if isinstance(tree, dict) else escape(str(tree))
    name = re.sub(r"[^\w.-]", "_", tag) or "_"
    return f"<{name}>{inside}</{name}>"


def to_json(tree) -> bytes:
    """JSON of a tree, halves of letters escaped; the long integers of ODD as they are."""
    return json.dumps(tree).encode()
