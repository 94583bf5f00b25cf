"""A small library of books in remodel, which speaks through a pool: python orm_remodel.py PORT."""

import sys
from typing import Any

from rethinkdb import r


def main(port: int) -> None:
    from remodel.connection import get_conn, pool
    from remodel.helpers import create_indexes, create_tables, drop_tables
    from remodel.models import Model

    with r.connect(port=port) as conn:
        r.db_create("library").run(conn)
    pool.configure(port=port, db="library", max_connections=2)

    class Author(Model):  # type: ignore[misc]
        has_many = ("Book",)

    class Book(Model):  # type: ignore[misc]
        belongs_to = ("Author",)
        has_and_belongs_to_many = ("Shelf",)

    class Shelf(Model):  # type: ignore[misc]
        has_and_belongs_to_many = ("Book",)

    create_tables()
    create_indexes()
    author: Any = Author.create(name="Selma")
    books = [Book.create(title=title, year=year) for title, year in (("Nils", 1906), ("Gösta", 1891))]
    author["books"].add(*books)
    shelf = Shelf.create(number=7)
    shelf["books"].add(books[0])
    assert sorted(book["title"] for book in Author.get(name="Selma")["books"].all()) == ["Gösta", "Nils"]
    assert Book.get(title="Nils")["author"]["id"] == author["id"]
    assert [book["title"] for book in Shelf.get(number=7)["books"].all()] == ["Nils"]
    old = Book.get(title="Gösta")
    old["year"] = 1892
    old.save()
    assert Book.filter(year=1892)[0]["title"] == "Gösta"
    with get_conn() as conn:
        assert list(Book.order_by("year").limit(1)["title"].run(conn)) == ["Gösta"]
    old.delete()
    assert len(Book.all()) == 1
    drop_tables()
    with get_conn() as conn:
        assert r.table_list().run(conn) == []
        r.db_drop("library").run(conn)


if __name__ == "__main__":
    main(int(sys.argv[1]))
