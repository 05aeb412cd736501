"""An XMP packet written from its properties, in the compact spelling: plain values as attributes, all else elements."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape, quoteattr

from app.images.metadata.xmp import (
    DC,
    EXIF,
    IPTC_CORE,
    IPTC_EXT,
    PHOTOSHOP,
    RDF,
    RIGHTS,
    TIFF,
    XAP,
    XML,
    Name,
    Packet,
    Value,
)

_HEAD = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">'
_TAIL = '</x:xmpmeta>\n<?xpacket end="w"?>'
_USUAL_PREFIXES = {
    DC: "dc",
    XAP: "xmp",
    RIGHTS: "xmpRights",
    TIFF: "tiff",
    EXIF: "exif",
    PHOTOSHOP: "photoshop",
    IPTC_CORE: "Iptc4xmpCore",
    IPTC_EXT: "Iptc4xmpExt",
}
# What an attribute's value would lose when it is read again.
_LINE_ENDS = {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}
_RETURN = {"\r": "&#13;"}
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_PREFIX = re.compile(r"[A-Za-z_][\w.-]{0,40}")


def serialized(packet: Packet) -> bytes | None:
    """UTF-8 bytes of a whole packet with its wrapper, or None when it holds no property."""
    properties = {name: value for name, value in packet.properties.items() if name[0]}
    if not properties:
        return None
    writer = _Writer(packet.prefixes)
    body = writer.description(properties, 'rdf:about=""')
    spaces = "".join(f" xmlns:{prefix}={_quoted(uri)}" for uri, prefix in writer.used.items() if uri != RDF)
    rdf = f'<rdf:RDF xmlns:rdf="{RDF}"{spaces}>\n{body}\n</rdf:RDF>'
    return (_HEAD + rdf + _TAIL).encode("utf-8", "replace")


def _quoted(text: str) -> str:
    return quoteattr(_NOT_XML.sub("", text), _LINE_ENDS)


def _escaped(text: str) -> str:
    return escape(_NOT_XML.sub("", text), _RETURN)


class _Writer:
    """Writes values and gathers the namespaces that it needs."""

    def __init__(self, prefixes: dict[str, str]) -> None:
        self._wanted = _USUAL_PREFIXES | {uri: prefix for uri, prefix in prefixes.items() if _PREFIX.fullmatch(prefix)}
        self.used: dict[str, str] = {RDF: "rdf"}

    def _name(self, name: Name) -> str:
        uri, local = name
        if uri == XML:
            return f"xml:{local}"
        if uri not in self.used:
            prefix = self._wanted.get(uri, "ns1")
            taken = {*self.used.values(), "xml", "xmlns", "x"}
            number = 1
            while prefix in taken:
                number += 1
                prefix = f"ns{number}"
            self.used[uri] = prefix
        return f"{self.used[uri]}:{local}"

    def description(self, fields: dict[Name, Value], head: str = "") -> str:
        """An rdf:Description of named values."""
        return self._element("rdf:Description", head, fields)

    def _element(self, tag: str, head: str, fields: dict[Name, Value]) -> str:
        named = {name: value for name, value in fields.items() if name[0]}
        plain = [f"{self._name(name)}={_quoted(value.text)}" for name, value in named.items() if value.is_plain]
        attributes = "".join(f" {part}" for part in ([head] if head else []) + plain)
        elements = "".join(self._property(name, value) for name, value in named.items() if not value.is_plain)
        return f"<{tag}{attributes}>{elements}</{tag}>" if elements else f"<{tag}{attributes}/>"

    def _property(self, name: Name, value: Value) -> str:
        return self._value(self._name(name), value)

    def _value(self, tag: str, value: Value) -> str:
        language = value.qualifiers.get((XML, "lang"))
        others = {name: one for name, one in value.qualifiers.items() if name != (XML, "lang") and name[0]}
        head = f" xml:lang={_quoted(language.text)}" if language else ""
        if others:
            bare = Value(value.text, value.is_uri, value.fields, value.items, value.kind)
            return f"<{tag}{head}>{self.description({(RDF, 'value'): bare, **others})}</{tag}>"
        if value.items is not None:
            items = "".join(self._value("rdf:li", item) for item in value.items)
            return f"<{tag}{head}><rdf:{value.kind}>{items}</rdf:{value.kind}></{tag}>"
        if value.fields is not None:
            return self._structure(tag, head, value.fields)
        if value.is_uri:
            return f"<{tag}{head} rdf:resource={_quoted(value.text)}/>"
        return f"<{tag}{head}>{_escaped(value.text)}</{tag}>"

    def _structure(self, tag: str, head: str, fields: dict[Name, Value]) -> str:
        if fields and not head and all(value.is_plain for value in fields.values()):
            return self._element(tag, "", fields)
        if not fields:
            return f'<{tag}{head} rdf:parseType="Resource"/>'
        return f"<{tag}{head}>{self.description(fields)}</{tag}>"
