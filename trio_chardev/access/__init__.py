"""What a client may name and reach: paths, objects, credentials."""
