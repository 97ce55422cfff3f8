"""Alignment: rows of several tables on one grid of times."""
