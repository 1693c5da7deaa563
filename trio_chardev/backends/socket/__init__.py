"""Stream sockets of any family, and the protocols on them."""
