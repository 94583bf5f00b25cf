"""The database `rethinkdb`: what a driver, a tool or a monitor asks and tells the server itself.

    table       what a system table is, and how terms read it       writing    writes to system tables
    tables      the list of all of them                             site       what a server knows of itself
    databases  configs  statuses  servers  accounts  grants  scratch            the tables, by family
    fields      checks of rows that users write, in RethinkDB's words

One rule: names, ids, shapes and messages are RethinkDB's; what is ours is not listed, but found by its name.
"""

from server.system.site import Row, Site
from server.system.table import Change, SystemTable
from server.system.tables import SystemTables

__all__ = ["Change", "Row", "Site", "SystemTable", "SystemTables"]
