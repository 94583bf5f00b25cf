"""The same random queries to a RethinkDB and to a RewindDB, and what they answer differently.

    rethinkdb --driver-port 38015 --directory rethinkdb_data
    python -m integration.beside_rethinkdb --rethinkdb 38015 --rewinddb 28015 --queries 10000 --seed 1

Both get a database `beside`, and keep it.
"""
