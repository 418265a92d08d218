"""Command-line arguments, messages, text tables, and imports that wait until a library is used."""
