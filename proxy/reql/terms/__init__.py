"""The terms, by family. Importing this package fills the registry; one rule: a term's number stands in one file."""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
