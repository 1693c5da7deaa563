"""What clients may name and reach: paths, objects, credentials."""
