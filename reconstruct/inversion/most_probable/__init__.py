"""Method ``map``: prepare, search, finish, each in a file of its own."""
