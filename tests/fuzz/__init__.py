"""Hostile files, made from a seed and given to everything that reads files: ``python -m tests.fuzz``, or ``make fuzz``.

``seeds`` are whole files of each kind, ``mutations`` damage them, ``kinds`` puts both together and says what reads the
kind, ``children`` runs it in processes that may hang, grow or die.
"""
