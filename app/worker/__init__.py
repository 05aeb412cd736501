"""The in-process worker: threads that drain the queue of waiting attempts, and how they are."""

from app.worker.worker import Worker, WorkerHealth

__all__ = ["Worker", "WorkerHealth"]
