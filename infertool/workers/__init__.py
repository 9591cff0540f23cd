"""infertool.workers."""
