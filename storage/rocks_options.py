"""How RocksDB is set up: its sizes, and the form of its files and memtables.

One rule: what is here changes how fast an engine is, never what is in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options, WriteBufferManager

ZSTD_LEVEL: Final = 1
RECENT_SHARE: Final = 4  # of a cache's bytes, one in so many is for rows that were read of late
MOST_RECENT_BYTES: Final = 512 << 20
RING_SHARE: Final = 4  # and at most so much is for those that have no room there, if that is more
LOOKUPS_SHARE: Final = 16  # else so much for lookups in secondary indexes
RING_PLACES_SHARE: Final = 16  # of a ring, and so much beyond it, is for where things are


@dataclass(frozen=True, slots=True)
class RocksSettings:
    """Sizes of one engine. The block cache decides how fast a get is: 4 µs if the rows fit, 8 µs and more if not.

    A part of the cache's bytes is for rows as they are (`recent_bytes`): another get of one of those takes 0.2 µs. And
    one is for lookups, and in a large cache for rows that were asked for before those (`ring_bytes`): 0.5 to 1 µs.
    Memtables are a part of it, too, at most the half.
    """

    cache_bytes: int = 512 << 20
    memtable_bytes: int = 64 << 20
    memtables: int = 4
    background_jobs: int = 2
    compression: str = "lz4"  # or zstd, which is for the lowest level, where nearly all is

    @property
    def recent_bytes(self) -> int:
        return min(self.cache_bytes // RECENT_SHARE, MOST_RECENT_BYTES)

    @property
    def has_rows_in_ring(self) -> bool:
        """Whether the ring has more room for rows than `recent_bytes`. Else it is better that those have the room."""
        return self.cache_bytes // RING_SHARE > MOST_RECENT_BYTES

    @property
    def ring_bytes(self) -> int:
        """A power of two, as a ring takes."""
        share = RING_SHARE if self.has_rows_in_ring else LOOKUPS_SHARE
        return 1 << max(1, self.cache_bytes // share).bit_length() - 1

    @property
    def block_cache_bytes(self) -> int:
        """What is left."""
        return self.cache_bytes - self.recent_bytes - self.ring_bytes - self.ring_bytes // RING_PLACES_SHARE

    @property
    def write_buffer_bytes(self) -> int:
        """Of one memtable."""
        return min(self.memtable_bytes, self.cache_bytes // (2 * self.memtables))


DEFAULT_SETTINGS: Final = RocksSettings()


def database_options(settings: RocksSettings) -> Options:
    """How files and memtables are made; bulk loading makes its files alike."""
    blocks = BlockBasedOptions()
    cache = Cache(settings.block_cache_bytes)
    blocks.set_block_cache(cache)
    blocks.set_block_size(16 << 10)  # as fast as 4 KB for cached gets, and 60 % of the size with zstd
    # Within a block, rows between two restarts are passed one by one: 4 make a get of 1 KB 0.3 µs faster than
    # RocksDB's 16, and files 0.5 % larger.
    blocks.set_block_restart_interval(4)
    blocks.set_bloom_filter(10, False)
    options = Options(raw_mode=True)
    # Memtables count as a part of the cache, which gives way: with a million rows of 1 KB that is 30 MB less.
    most_bytes = settings.write_buffer_bytes * settings.memtables
    options.set_write_buffer_manager(WriteBufferManager.new_write_buffer_manager_with_cache(most_bytes, False, cache))
    options.create_if_missing(True)
    options.set_block_based_table_factory(blocks)
    options.set_compression_type(DBCompressionType.lz4())
    # What a memtable becomes is soon written anew: to pack it costs a third of the flush (1.2 µs of a row of 1 KB).
    options.set_compression_per_level([DBCompressionType.none()] + [DBCompressionType.lz4()] * 6)
    if settings.compression == "zstd":
        options.set_bottommost_compression_type(DBCompressionType.zstd())
        # Level 1 takes 1.06 s of compaction where RocksDB's 3 takes 1.65 (300,000 rows of 1 KB), in as many bytes.
        options.set_bottommost_compression_options(-14, ZSTD_LEVEL, 0, 0, True)
    options.set_write_buffer_size(settings.write_buffer_bytes)
    options.set_max_write_buffer_number(settings.memtables)
    # An insert looks for the old row first: with this filter the search of the memtable takes 0.65 µs, not 2.9.
    options.set_memtable_prefix_bloom_ratio(0.02)
    options.set_memtable_whole_key_filtering(True)
    options.set_max_background_jobs(settings.background_jobs)
    options.set_level_zero_slowdown_writes_trigger(30)
    options.set_level_zero_stop_writes_trigger(50)
    options.set_bytes_per_sync(1 << 20)
    options.set_avoid_unnecessary_blocking_io(True)
    options.set_keep_log_file_num(4)
    options.set_max_log_file_size(8 << 20)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options
