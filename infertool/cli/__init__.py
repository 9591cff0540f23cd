"""The command line: one package a command (`command.py`, `run.py`, `view.py`), and `common`."""
