"""The almanac: a generator of small encyclopaedias whose truth is known, and the judge that knows it."""
