"""`infertool dev`: the embedded broker and channel server."""
