"""XML files of any encoding that Python knows -> element trees with plain tags."""
import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

DECLARED = re.compile(rb"""<\?xml[^>]*\bencoding\s*=\s*["']([\w.:-]+)""")


def read_xml(path: str) -> Element:
    """The root of an XML file; its tags in small letters and without namespaces. Raises what the parser raises.

    Expat fetches no external entity, and ends a file whose entities grow without measure with an error.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        root = ElementTree.fromstring(data)
    except (ValueError, LookupError):  # expat reads UTF and one byte a letter; Python decodes gb2312, big5, shift_jis
        declared = DECLARED.search(data[:200])
        if not declared:
            raise
        root = ElementTree.fromstring(data.decode(declared[1].decode()))  # of a text the declaration does not count
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2].lower()
    return root


def texts(node: Element, tag: str) -> list[str]:
    """What the children of a node with this tag say, white space as in a sentence; empty ones are left out."""
    return [text for child in node.findall(tag) if (text := " ".join((child.text or "").split()))]


def tags(node: Element) -> str:
    """The tags below a node, in words."""
    return ", ".join(f"<{child.tag}>" for child in node) or "nothing"
