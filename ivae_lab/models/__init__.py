"""Models: what is trained. One class per kind of computation; everything else is a composition in YAML."""
