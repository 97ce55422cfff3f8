"""Bundles as one file or folder that opens without a lake."""
