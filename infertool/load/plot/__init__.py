"""Plots of runs: one way to draw them, as SVG, for the page and for the picture."""
