"""What tests are made of: networks, modules, pictures, results, and the command line in a process of its own."""
