"""Quality of stored rows: check, record, report."""
