"""Repairs of stored rows: planned, made, recorded, undone."""
