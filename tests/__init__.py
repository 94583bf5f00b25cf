"""RewindDB's tests; a package of its own name, because others install a `tests` too."""
