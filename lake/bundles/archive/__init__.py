"""Exported bundles: an archive or a folder that opens without a lake."""
