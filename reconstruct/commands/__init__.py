"""The command line: a module a command, each of which parses, calls the library and prints. No mathematics.

``main`` joins the commands. They share ``options`` (each stated once, and what its values mean), ``terminal`` (what is
printed, and progress), ``common`` (methods, a device, pictures in batches, as a call names them) and, those of
``analyze``, ``findings``. Whatever imports torch is imported inside the commands, so that ``reconstruct --help`` is
quick.
"""
