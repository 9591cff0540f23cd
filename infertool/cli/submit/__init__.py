"""`infertool submit`: many requests from a file to a gateway."""
