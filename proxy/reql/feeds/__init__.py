"""Changefeeds: from an applied change to the responses of each query that waits for it.

    hub      every change passes through it       chain    a change is kept once, each feed knows its place
    changes  feeds of ranges and of rows          streams  what `changes` gives, with what may follow it
    lenses   the same view is worked out once     cursor   the responses
    resume   going on after a disconnect

One rule: what a change costs does not grow with the feeds that show the same of it, up to sending it.
"""
