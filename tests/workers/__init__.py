"""Tests of processes of our own."""
