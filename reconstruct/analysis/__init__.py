"""The analyses of the papers as functions that return numbers. They draw nothing and print nothing."""
