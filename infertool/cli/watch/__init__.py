"""`infertool watch`: the live view of a bus."""
