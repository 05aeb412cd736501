"""Who hears that a job changed: the `Events` protocol, and `LocalEvents` for one process."""

from app.events.local import LocalEvents
from app.events.protocol import Events, OnChange, Unsubscribe

__all__ = ["Events", "LocalEvents", "OnChange", "Unsubscribe"]
