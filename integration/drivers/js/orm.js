// A small library of books in thinky: relations, virtual fields, indexes, feeds of documents.
'use strict';
const assert = require('assert');

async function main(port) {
  const thinky = require('thinky')({ host: '127.0.0.1', port, db: 'orm', silent: true });
  const { type, r } = thinky;
  const Author = thinky.createModel('Author', { id: String, name: type.string().required() });
  const Book = thinky.createModel('Book', {
    id: String,
    title: String,
    year: type.number().min(1000),
    added: type.date().default(r.now()),
    label: type.virtual().default(function label() {
      return `${this.title} (${this.year})`;
    }),
    authorId: String,
  });
  Author.hasMany(Book, 'books', 'id', 'authorId');
  Book.belongsTo(Author, 'author', 'authorId', 'id');
  Book.ensureIndex('year');
  await Promise.all([Author.ready(), Book.ready()]);
  const author = new Author({ name: 'Selma' });
  author.books = [new Book({ title: 'Nils', year: 1906 }), new Book({ title: 'Gösta', year: 1891 })];
  await author.saveAll({ books: true });
  const found = await Author.get(author.id).getJoin({ books: { _apply: (books) => books.orderBy('year') } }).run();
  assert.deepEqual(found.books.map((book) => book.label), ['Gösta (1891)', 'Nils (1906)']);
  assert(found.books[0].added instanceof Date);
  await assert.rejects(new Book({ title: 'Too old', year: 1 }).save(), /year/);
  assert.deepEqual((await Book.orderBy({ index: 'year' }).run()).map((book) => book.title), ['Gösta', 'Nils']);
  const feed = await Book.changes();
  await Book.get(found.books[0].id).update({ year: 1892 }).run();
  const changed = await feed.next();
  assert.equal(changed.year, 1892);
  assert.equal(changed.getOldValue().year, 1891);
  await feed.close();
  await found.deleteAll({ books: true });
  assert.equal(await Book.count().execute(), 0);
  await r.dbDrop('orm').run();
  await r.getPoolMaster().drain();
}

main(Number(process.argv[2])).catch((error) => {
  console.error(error);
  process.exit(1);
});
