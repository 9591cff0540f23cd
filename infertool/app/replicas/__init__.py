"""Replicas: several consumer processes under one supervisor."""
