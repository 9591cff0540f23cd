"""An in-process broker: `memory://NAME`."""
