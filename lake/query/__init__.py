"""Queries over the tables of a lake: SQL, look-ups, overviews, the audit of commits."""
