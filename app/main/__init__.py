"""Builds the parts of the service and joins them; everything a part needs is handed to it here as plain values.

`create_app` makes the API, `create_dashboard` what the dashboard's port serves, `serve` runs both in one
process; `work` runs a process that only restores.
"""

from app.main.application import create_app
from app.main.roles import ProcessRole
from app.main.service import Service
from app.main.serving import STATIC_FOLDER, create_dashboard, serve
from app.main.worker_service import work

__all__ = ["STATIC_FOLDER", "ProcessRole", "Service", "create_app", "create_dashboard", "serve", "work"]
