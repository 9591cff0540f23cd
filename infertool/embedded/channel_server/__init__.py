"""The embedded Phoenix-compatible channel server and its dashboard page."""
