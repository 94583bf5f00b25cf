"""Tests of real server processes."""
