"""Builds the parts of the service and joins them; everything a part needs is handed to it here as plain values.

`create_app` makes the API, `create_dashboard` what the dashboard's port serves, `serve` runs both in one process.
"""

from app.main.application import create_app
from app.main.service import Service
from app.main.serving import STATIC_FOLDER, create_dashboard, serve

__all__ = ["STATIC_FOLDER", "Service", "create_app", "create_dashboard", "serve"]
