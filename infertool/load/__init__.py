"""Load on the bus: when events are due, what they hold, sending them, and what became of each."""
