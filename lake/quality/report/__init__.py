"""The quality report: a document of figures, and the page that shows it. Reads no storage."""
