"""Tests of consumers that a Python program runs."""
