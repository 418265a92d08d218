"""A user's tables: read in blocks, columns by kind, preprocessing, written as they are made."""
