"""The command line: options in, calls of the API, tables and errors out."""
