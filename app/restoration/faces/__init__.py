"""Faces: found, restored one by one, and pasted back into the enlarged photo."""

from app.restoration.faces.models import FaceModels
from app.restoration.faces.pipeline import Face, FacesResult, LoadedFaceModels, find_faces, restore_faces

__all__ = ["Face", "FaceModels", "FacesResult", "LoadedFaceModels", "find_faces", "restore_faces"]
