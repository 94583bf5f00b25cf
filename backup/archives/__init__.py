"""RethinkDB's archives, with its tools' flags and words: `dump`, `restore`, `export`, `import`, `index-rebuild`.

    commands     flags in, one call, summary out        index_rebuild  indexes of older versions
    dump         exports     out of a server            undump         imports     into one
    source       what a server tells                    schema         accounts    what is given back to it
    layout       codec       what is where, compressed  tar_output     tar_input   the file
    row_text     csv_rows    rows as texts              loading        rows over several connections

One rule: rows pass through as the text they are; what an archive says is checked before a server is told of it.
"""
