"""The tests. Imported before all of them, in each worker of a run."""

import os
import sys

# A run starts thousands of processes and imports all tests in each worker. Where the environment forbids Python to keep
# what it compiled, each of them compiles every module anew: two thirds of the time of a collection.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
