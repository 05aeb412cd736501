"""What wakes a worker: the `Queue` protocol, and `LocalQueue` (`queue.Queue`) for one process."""

from app.queue.local import LocalQueue
from app.queue.protocol import Consumer, Queue

__all__ = ["Consumer", "LocalQueue", "Queue"]
