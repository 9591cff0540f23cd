"""How the pipeline is observed: observers, statistics, logs."""
