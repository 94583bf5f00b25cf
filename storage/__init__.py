"""The applied state: rows, secondary indexes and the catalog, as they stand at one log index."""
