"""`infertool tail`: print events of Phoenix topics."""
