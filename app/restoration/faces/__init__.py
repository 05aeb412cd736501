"""Faces: found, restored one by one, and pasted back into the enlarged photo. It knows networks and pixels only."""

from app.restoration.faces.room import FAILED, TOO_MANY, Face, FacesDone, Tools, find, restore_faces
from app.restoration.faces.toolbox import Toolbox

__all__ = ["FAILED", "TOO_MANY", "Face", "FacesDone", "Toolbox", "Tools", "find", "restore_faces"]
