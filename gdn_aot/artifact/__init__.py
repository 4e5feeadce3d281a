"""The artifact file: its manifest, its container, and the checks before anything in it is used.

Import the modules, not this package: ``manifest``, ``parse`` and ``check`` need the standard library alone and
are safe in a serving process; ``archive`` and ``verify`` import zstandard.
"""
