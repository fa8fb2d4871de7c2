"""Shards: from texts to packed token rows in memory-mapped Arrow files, and back.

texts -> encode (ids, roles) -> pack (rows of equal length) -> format (Arrow files) -> manifest (what is there)
"""
