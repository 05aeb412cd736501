"""Official weight files over the network: one file fetched with resume, and the downloads that a service makes.

The command line and the service fetch in the same way. Nothing here loads a network, so torch is not needed.
"""

from app.model_downloads.downloads import Download, DownloadState, InstallWay, ModelDownloads
from app.model_downloads.fetching import OnBytes, fetch_weights, partial_bytes
from app.restoration.models.weights import WeightFile

__all__ = [
    "Download",
    "DownloadState",
    "InstallWay",
    "ModelDownloads",
    "OnBytes",
    "WeightFile",
    "fetch_weights",
    "partial_bytes",
]
