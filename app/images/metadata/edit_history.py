"""What was done to the picture itself, as an entry of the history that its XMP carries (xmpMM:History)."""

from __future__ import annotations

from app.images.metadata import xmp, xmp_parsing, xmp_writing

MEDIA_MANAGEMENT = "http://ns.adobe.com/xap/1.0/mm/"
RESOURCE_EVENT = "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"
SOFTWARE = "Neural Image Restore"
_HISTORY: xmp.Name = (MEDIA_MANAGEMENT, "History")


def with_edit(packet: bytes | None, what: str) -> bytes | None:
    """A packet with one more event; a broken one comes back as it is, since whoever writes it will say so.

    Args:
        packet: XMP as UTF-8, or None.
        what: one sentence. No time stands beside it, so that equal work gives equal bytes.

    Returns:
        A packet as UTF-8; None only where `packet` was None and nothing could be written.
    """
    try:
        parsed = xmp_parsing.parse(packet) if packet else xmp.Packet()
    except ValueError:
        return packet
    parsed.prefixes |= {MEDIA_MANAGEMENT: "xmpMM", RESOURCE_EVENT: "stEvt"}
    event = {"action": "edited", "softwareAgent": SOFTWARE, "parameters": what}
    before = parsed.properties.get(_HISTORY, xmp.Value()).items or []
    fields = {(RESOURCE_EVENT, name): xmp.Value(text) for name, text in event.items()}
    parsed.properties[_HISTORY] = xmp.Value(items=[*before, xmp.Value(fields=fields)], kind="Seq")
    return xmp_writing.serialized(parsed)
