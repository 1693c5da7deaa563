"""Kind console: many clients on one chardev, with a history."""
