"""Sets of images: what is published, how its files are read, the splits of each."""
