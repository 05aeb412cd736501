"""What names the place where a photo was taken: names of properties, IPTC data sets, and free text.

Every repetition in the patterns is bounded or cannot overlap its neighbour, so that no text costs more than its length.
"""

from __future__ import annotations

import re

# Local names of XMP properties, whatever their namespace and prefix; `fullmatch`, any case.
_PROPERTY = re.compile(
    r".*gps.*|.*latitude.*|.*longitude.*|.*altitude.*|lat|lon|lng|long|geo.*|.*location.*|.*address.*|sub_?location"
    r"|city|.*_city|ciadrcity|state|province.*|country.*|ciadr.*|world_?region|place.*|.*placename|poi|poi_.*|venue.*"
    r"|landmark.*|municipality|district|county|street.*|postal_?code|zip_?code|rtk.*|home_?point.*|time_?zone.*",
    re.IGNORECASE,
)
_MAX_CHARACTERS = 256 * 1024  # a quarter of a second
_NO_PLACE = frozenset({"SubjectLocation"})  # where in the picture the subject stands
# ContentLocationCode and -Name, City, Sublocation, Province-State, Country code and name, in record 2.
IPTC_PLACES = frozenset({26, 27, 90, 92, 95, 100, 101})
_COORDINATE = r"[-+]?\b\d{1,3}\.\d{4,}"
_FREE_TEXT = re.compile(
    r"gps|geotag|latitude|longitude|what3words|\bgeo:"
    r"|\b(?:lat|lon|lng|city|country|sub-?location|province|location|place|venue|address|coord(?:inate)?s?)"
    r"[\"']?\s?[:=]"
    rf"|{_COORDINATE}[\s°NSEW]{{0,4}}[,;/|\s][\s°NSEW]{{0,4}}{_COORDINATE}"  # 48.85837, 2.29448
    r"|\d{1,3}\s?(?:°|º|˚|deg\b|&deg;|\\u00b0|\\xb0)\s?\d{1,2}"  # 48°51'29"
    r"|\b\d{1,3},\d{1,2}(?:\.\d{1,9}|,\d{1,2})?\s?[NSEW]\b"  # 48,51.502N, as XMP writes it
    r"|\b\d{1,3}(?:\.\d{1,9})?\s?°?\s?[NS]\b[\s,;/]{0,3}\d{1,3}(?:\.\d{1,9})?\s?°?\s?[EW]\b"  # 48.8 N, 2.3 E
    r"|\b[NS]\s?\d{1,3}(?:[.:\s]\s?\d{1,9}){0,4}['\"]?[\s,;/]{0,3}[EW]\s?\d{1,3}"  # N48 51.5 E2 17.6
    r"|(?<![\w.])[-+]\d{2,6}(?:\.\d{1,9})?[-+]\d{3,7}(?:\.\d{1,9})?(?:[-+/]|\s|$)"  # +48.8577+002.295/, ISO 6709
    r"|(?-i:\b[2-9CFGHJMPQRVWX]{4,8}\+[2-9CFGHJMPQRVWX]{2,3}\b)"  # 8FW4V75V+8Q, an open location code
    r"|maps\.(?:google|apple|app)|google\.[a-z.]{2,10}/maps|goo\.gl/maps|openstreetmap\.org|plus\.codes|bing\.com/maps",
    re.IGNORECASE,
)
_TREE_OF_PLACES = re.compile(r"(?:places?|locations?|geo(?:graphy)?|countr(?:y|ies))\s?[|/.\\:]", re.IGNORECASE)


def is_place_property(local_name: str) -> bool:
    """Whether a property of this local name (without its namespace) says where something was."""
    return local_name not in _NO_PLACE and _PROPERTY.fullmatch(local_name) is not None


def tells_place(text: str) -> bool:
    """Whether free text holds coordinates, a link to a map, or a keyword of a tree of places; or is too long to say."""
    if len(text) > _MAX_CHARACTERS:
        return True
    return _FREE_TEXT.search(text) is not None or _TREE_OF_PLACES.match(text) is not None
