"""Serving: how fast answers are written."""
