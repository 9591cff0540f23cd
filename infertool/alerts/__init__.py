"""Alert rules over the stats document: expressions, states, notifications and their sinks."""
