"""From the bytes of an XMP packet to its properties: XML without document types, then RDF's spellings resolved."""

from __future__ import annotations

import dataclasses
from typing import NoReturn
from xml.parsers import expat

from app.images.metadata.xmp import RDF, XML, Name, Packet, Value

MAX_PACKET_BYTES = 4 * 1024 * 1024
_MAX_DEPTH = 64
MAX_NODES = 100_000
_ARRAYS = frozenset({(RDF, "Bag"), (RDF, "Seq"), (RDF, "Alt")})
_DESCRIPTION: Name = (RDF, "Description")
_VALUE: Name = (RDF, "value")
# UTF-16 is told by its mark, or by the first character, which is "<".
_WIDE = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"<\0": "utf-16-le", b"\0<": "utf-16-be"}
_SEPARATOR = "\x01"  # cannot stand in XML
_SYNTAX = frozenset({"about", "ID", "nodeID", "parseType", "resource", "datatype", "bagID", "aboutEach"})


def parse(data: bytes, max_nodes: int = MAX_NODES) -> Packet:
    """The properties of a packet; bytes around the XML (padding, zeros) are passed over.

    Raises:
        ValueError: it is not XML, has a document type or entities of its own, is too large or too deep, or has more
            elements and attributes than `max_nodes`.
    """
    if len(data) > MAX_PACKET_BYTES:
        raise ValueError("an XMP packet that is too large")
    wide = _WIDE.get(data[:2])
    if wide:
        data = data.decode(wide).encode("utf-8")
    start, stop = data.find(b"<"), data.rfind(b">")
    if start < 0:
        raise ValueError("no XMP packet")
    tree = _TreeBuilder("utf-8" if wide else None, max_nodes)
    try:
        tree.parser.Parse(data[start : stop + 1], True)
    except (expat.ExpatError, LookupError) as error:  # the latter of an encoding that does not exist
        raise ValueError(f"broken XML: {error}") from None
    packet = Packet(prefixes=tree.prefixes)
    for rdf in _found(tree.root, (RDF, "RDF")):
        for node in rdf.children:
            for name, value in _node_properties(node).items():
                packet.properties.setdefault(name, value)
    return packet


@dataclasses.dataclass
class _Element:
    name: Name
    attributes: dict[Name, str]
    children: list[_Element] = dataclasses.field(default_factory=list)
    texts: list[str] = dataclasses.field(default_factory=list)


def _split(name: str) -> Name:
    uri, _, local = name.rpartition(_SEPARATOR)
    return uri, local


class _TreeBuilder:
    """Expat's handlers; `root` stands above the document's own root."""

    def __init__(self, encoding: str | None, max_nodes: int) -> None:
        self.root = _Element(("", ""), {})
        self.prefixes: dict[str, str] = {}
        self._open = [self.root]
        self._nodes_left = max_nodes
        self.parser = expat.ParserCreate(encoding, _SEPARATOR)
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartNamespaceDeclHandler = self._namespace
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse

    def _refuse(self, *_: object) -> NoReturn:
        raise ValueError("a document type in XMP")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._nodes_left -= 1 + len(attributes)
        if len(self._open) > _MAX_DEPTH or self._nodes_left < 0:
            raise ValueError("XMP too deep or too large")
        element = _Element(_split(name), {_split(key): value for key, value in attributes.items()})
        self._open[-1].children.append(element)
        self._open.append(element)

    def _end(self, _: str) -> None:
        self._open.pop()

    def _text(self, text: str) -> None:
        self._open[-1].texts.append(text)

    def _namespace(self, prefix: str | None, uri: str) -> None:
        if prefix:
            self.prefixes.setdefault(uri, prefix)


def _found(element: _Element, name: Name) -> list[_Element]:
    """The elements of a name that stand in no other of that name."""
    found = []
    for child in element.children:
        found += [child] if child.name == name else _found(child, name)
    return found


def _is_syntax(name: Name) -> bool:
    return name[0] == XML or (name[0] == RDF and name[1] in _SYNTAX) or name in (("", "about"), ("", "ID"))


def _node_properties(node: _Element) -> dict[Name, Value]:
    """The properties of an rdf:Description (or another typed node): its attributes and its elements."""
    properties = {name: Value(text) for name, text in node.attributes.items() if not _is_syntax(name)}
    for child in node.children:
        properties.setdefault(child.name, _property_value(child))
    if node.name != _DESCRIPTION and node.name[0]:
        properties.setdefault((RDF, "type"), Value("".join(node.name), is_uri=True))
    return properties


def _property_value(element: _Element) -> Value:
    """What a property element says, in whichever of RDF's spellings."""
    value = _bare_value(element)
    language = element.attributes.get((XML, "lang"))
    if language:
        value.qualifiers.setdefault((XML, "lang"), Value(language))
    return value


def _bare_value(element: _Element) -> Value:
    resource = element.attributes.get((RDF, "resource"))
    if resource is not None:
        return Value(resource, is_uri=True)
    if element.attributes.get((RDF, "parseType")) == "Resource":
        return _qualified({child.name: _property_value(child) for child in element.children})
    own = {name: Value(text) for name, text in element.attributes.items() if not _is_syntax(name)}
    if not element.children:
        text = "".join(element.texts)
        return _qualified(own) if own else Value(text)
    node = element.children[0]
    if node.name in _ARRAYS:
        return Value(items=[_property_value(child) for child in node.children], kind=node.name[1])
    return _qualified(own | _node_properties(node))


def _qualified(fields: dict[Name, Value]) -> Value:
    """A structure; one with rdf:value is that value, and its other fields are said of it."""
    value = fields.pop(_VALUE, None)
    if value is None:
        return Value(fields=fields)
    value.qualifiers.update(fields)
    return value
