"""Configuration files in TOML: what the command line says, for many consoles."""
