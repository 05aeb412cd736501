"""The in-process worker: threads that drain the queue of waiting attempts, and how they are."""

from app.worker.message_holder import MessageHolder
from app.worker.worker import Worker, WorkerHealth

__all__ = ["MessageHolder", "Worker", "WorkerHealth"]
