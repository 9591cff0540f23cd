"""Models: the port, the loader, and the simulated reference model."""
