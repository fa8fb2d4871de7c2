"""The report: data out of the tables, plots from data, a page and a table from both."""
