"""Pages of results: one HTML file of a run of ``evaluate``, or of several runs beside each other."""
