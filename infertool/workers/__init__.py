"""Processes of our own: how they are started, tied to this process, watched and ended."""
