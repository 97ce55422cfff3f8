"""Ingestion: plan, fetch, store, record."""
