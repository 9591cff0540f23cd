"""Event production and the book that checks nothing was lost."""
