"""Connections to addresses that somebody else named: which may be contacted, and how without falling for a trick."""
