"""Documents and a service registry in doublethink, as crawlers use it: python orm_doublethink.py PORT."""

import sys

from doublethink import Document, Rethinker, ServiceRegistry, utcnow
from rethinkdb import errors


class Page(Document):  # type: ignore[misc]
    table = "pages"

    @classmethod
    def table_create(cls, rr: Rethinker) -> None:
        super().table_create(rr)
        rr.table(cls.table).index_create("visits").run()
        rr.table(cls.table).index_wait().run()


def main(port: int) -> None:
    server = f"127.0.0.1:{port}"
    Rethinker(servers=[server]).db_create("crawl").run()
    rr = Rethinker(servers=[server], db="crawl")
    Page.table_ensure(rr)
    Page.table_ensure(rr)
    page = Page(
        rr, {"url": "https://example.org/", "visits": 1, "links": ["a"], "seen": utcnow().replace(microsecond=0)}
    )
    page.save()
    page.visits += 1
    page.links.append("b")
    page.save()
    loaded = Page.load(rr, page.id)
    assert (loaded.visits, loaded.links, loaded.seen) == (2, ["a", "b"], page.seen), loaded
    del page["links"]
    page.save()
    loaded.refresh()
    assert "links" not in loaded
    assert [found["id"] for found in rr.table("pages").get_all(2, index="visits").run()] == [page.id]
    try:
        rr.table("no such").count().run()
    except errors.ReqlError as error:
        assert "invalid" in error.message, error.message
    else:
        raise AssertionError("a table of that name was read")
    registry = ServiceRegistry(rr)
    status = registry.heartbeat({"role": "crawler", "load": 0.25, "ttl": 30})
    assert registry.available_service("crawler")["id"] == status["id"]
    registry.unregister(status["id"])
    assert registry.available_service("crawler") is None
    Rethinker(servers=[server]).db_drop("crawl").run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
