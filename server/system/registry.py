"""What the families of system tables share: the site, which is complete only once the ports are known, and the cluster.

One rule: every server of the cluster holds every table, and takes part in it as it takes part in the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.catalog import Catalog
from server.system.site import SeeServers, Server, Site, alone, configured


@dataclass(slots=True)
class Registry:
    """One per server. `site` is replaced when more is known of it; `see` tells of all servers."""

    site: Site
    see: SeeServers = alone

    def servers(self, catalog: Catalog) -> list[Server]:
        """All servers of the cluster, by id."""
        return self.see(self.site, catalog)

    def reached(self, catalog: Catalog) -> list[Server]:
        """Those that answer."""
        return [server for server in self.servers(catalog) if server.is_reached]

    def own(self, catalog: Catalog) -> Server:
        """This one."""
        return configured(self.site, catalog)
