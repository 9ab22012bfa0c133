"""Texts of users and of data files, as lines, tables and pictures can show them."""
import unicodedata


def one_line(text) -> str:
    """A text with a space for each line break and other control character, and ? for what no text file can hold."""
    text = str(text)
    if text.isprintable():  # most are
        return text
    signs = {"Cc": " ", "Zl": " ", "Zp": " ", "Cs": "?"}
    return "".join(signs.get(unicodedata.category(letter), letter) for letter in text)
