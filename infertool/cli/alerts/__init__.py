"""`infertool alerts`: check, test and export alert rules."""
