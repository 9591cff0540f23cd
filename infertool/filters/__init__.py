"""Filters over events (CEL) and regular expressions, both evaluated in bounded time."""
