"""The commands, one module each: parse, call the library, print. No mathematics.

Whatever imports torch is imported inside the commands, so that ``reconstruct --help`` is quick.
"""
