"""Figures and pages of results. It computes nothing that a command does not print.

``figures`` draws reconstructions and what the analyses have found, ``pages`` writes the page of a run or of several,
and ``compare`` holds two runs against each other, as ``reconstruct report --json`` prints it.
"""
