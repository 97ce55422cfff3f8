"""Bundles: manifests that pin table versions, and reads through them."""
