"""Faces: found, restored one by one, and pasted back into the enlarged photo. It knows networks and pixels only."""

from app.restoration.faces.models import FaceModels
from app.restoration.faces.pipeline import Face, FacesDone, LoadedFaceModels, find, restore_faces

__all__ = ["Face", "FaceModels", "FacesDone", "LoadedFaceModels", "find", "restore_faces"]
