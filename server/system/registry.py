"""What the families of system tables share: the site, which is complete only once the ports are known."""

from __future__ import annotations

from dataclasses import dataclass

from server.system.site import Site


@dataclass(slots=True)
class Registry:
    """One per server. `site` is replaced when more is known of it."""

    site: Site
