"""Text utilities: JSON that keeps its numbers, escaping for terminals, units, suggestions for misspelt names."""
