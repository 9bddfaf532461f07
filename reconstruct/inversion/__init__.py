"""Features back to images: one module a method, and ``invert``, which picks. It knows no command line and no page."""
