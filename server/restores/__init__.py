"""Restores into the running server: the tables of a moment, put beside what is there, then under their names.

    asking   what is asked, checked      work     the jobs of the table `restores`
    arrival  rows from a child process   writing  rows through the log, first into a database of their own
    plug     into a server

One rule: until the last step nothing that the server serves has changed.
"""
