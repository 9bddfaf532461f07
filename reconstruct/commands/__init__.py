"""The command line: a module a command, each of which parses, calls the library and prints. No mathematics.

Whatever imports torch is imported inside the commands, so that ``reconstruct --help`` is quick.
"""
