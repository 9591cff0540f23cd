"""`infertool demo`: the whole bus on this machine."""
