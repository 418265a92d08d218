"""Files that survive: written whole, checked, locked."""
