"""Pages of results: one HTML file of a run of ``evaluate``, or of several runs beside each other.

``write`` makes the file from ``templates``; ``run`` and ``comparison`` say what is in it, in sentences, ``charts``,
``thumbnails`` and numbers (``wording``).
"""
