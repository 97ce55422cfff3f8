"""The report on quality: a document of figures, and the page that shows it. Nothing here reads."""
