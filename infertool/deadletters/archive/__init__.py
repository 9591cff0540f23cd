"""infertool.deadletters.archive."""
