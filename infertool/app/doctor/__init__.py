"""Diagnosis: checks of settings, environment, servers, model, paths and sinks, each with the value it measured.

A check reads, connects and measures. It takes nothing from the user's queues, and leaves nothing behind.
"""
