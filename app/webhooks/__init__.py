"""Telling others when a job ends: which addresses may be told, how it is signed and sent, and the tries."""
