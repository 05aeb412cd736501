"""XMP packets parsed into properties and their values, and written anew from them.

Expat reads the XML; a document type, and with it every entity, is refused, and so are packets that are too large or
too deep. Attributes, nested elements and all of RDF's spellings become one model, so that no spelling escapes a rule.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
XML = "http://www.w3.org/XML/1998/namespace"
DC = "http://purl.org/dc/elements/1.1/"
XAP = "http://ns.adobe.com/xap/1.0/"
RIGHTS = "http://ns.adobe.com/xap/1.0/rights/"
TIFF = "http://ns.adobe.com/tiff/1.0/"
EXIF = "http://ns.adobe.com/exif/1.0/"
PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
IPTC_CORE = "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"
IPTC_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"

# A property's namespace and local name.
Name = tuple[str, str]


@dataclasses.dataclass
class Value:
    """One value: text, or a structure (`fields`), or an array (`items` of a `kind`).

    Attributes:
        text: of a simple value. `is_uri`: it was given as rdf:resource.
        fields: of a structure. items: of an array; kind: Bag, Seq or Alt.
        qualifiers: what is said of the value itself; xml:lang is the usual one.
    """

    text: str = ""
    is_uri: bool = False
    fields: dict[Name, Value] | None = None
    items: list[Value] | None = None
    kind: str = "Bag"
    qualifiers: dict[Name, Value] = dataclasses.field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether the value fits into an attribute."""
        return self.fields is None and self.items is None and not self.qualifiers and not self.is_uri

    def first_text(self) -> str:
        """The text of a simple value, or of the first simple item."""
        return self.items[0].first_text() if self.items else self.text

    def texts(self) -> list[str]:
        """The text of a simple value, or those of all items."""
        return [self.text] if self.items is None else [text for item in self.items for text in item.texts()]

    def parts(self) -> Iterator[dict[Name, Value]]:
        """Every mapping of names to values in it, itself and below."""
        for mapping in (self.fields or {}, self.qualifiers):
            yield mapping
            for value in list(mapping.values()):
                yield from value.parts()
        for item in self.items or ():
            yield from item.parts()


@dataclasses.dataclass
class Packet:
    """The properties of one photo, and the prefixes that its namespaces had."""

    properties: dict[Name, Value] = dataclasses.field(default_factory=dict)
    prefixes: dict[str, str] = dataclasses.field(default_factory=dict)

    def mappings(self) -> Iterator[dict[Name, Value]]:
        """Every mapping of names to values, from the top down; entries may be changed on the way."""
        yield self.properties
        for value in list(self.properties.values()):
            yield from value.parts()

    def merge(self, other: Packet) -> None:
        """Take what this packet lacks from another."""
        for name, value in other.properties.items():
            self.properties.setdefault(name, value)
        for uri, prefix in other.prefixes.items():
            self.prefixes.setdefault(uri, prefix)


def text_list(texts: list[str], kind: str) -> Value:
    """An array of simple values."""
    return Value(items=[Value(text) for text in texts], kind=kind)


def default_text(text: str) -> Value:
    """A text in no particular language, as titles, descriptions and rights are written."""
    return Value(items=[Value(text, qualifiers={(XML, "lang"): Value("x-default")})], kind="Alt")
