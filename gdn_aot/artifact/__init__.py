"""The artifact file: its manifest, its container, and the checks before anything in it is used.

Import the modules, not this package: ``names`` is light and safe at the start of a serving process; ``manifest``,
``manifest_json`` and ``check`` import msgspec, ``archive`` and ``verify`` zstandard too.
"""
