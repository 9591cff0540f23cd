"""Plots of load runs as SVG, in an HTML page or a PNG."""
