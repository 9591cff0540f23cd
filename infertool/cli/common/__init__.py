"""What several commands share: the console, options, signals, event lines and dead letters."""
