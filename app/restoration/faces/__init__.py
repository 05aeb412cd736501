"""Faces: found, restored one by one, and pasted back into the enlarged photo. It knows networks and pixels only."""

from app.restoration.faces.models import Toolbox
from app.restoration.faces.pipeline import FAILED, TOO_MANY, Face, FacesDone, Tools, find, restore_faces

__all__ = ["FAILED", "TOO_MANY", "Face", "FacesDone", "Toolbox", "Tools", "find", "restore_faces"]
