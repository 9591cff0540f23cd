"""Hosts and ports as URLs and messages write them."""

from __future__ import annotations


def in_url(host: str) -> str:
    """Return a host as URLs write it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def host_and_port(host: str, port: int) -> str:
    """Return HOST:PORT."""
    return f"{in_url(host)}:{port}"
