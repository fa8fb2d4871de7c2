import gzip

import pytest
import zstandard

from udfs.text.recast.files import csv_rows, json_file, json_lines, lines, parse
from udfs.text.recast.records import Malformed


def reason(function, *arguments):
    with pytest.raises(Malformed) as caught:
        list(function(*arguments))
    return caught.value.reason


@pytest.mark.parametrize(("name", "pack"), [("a", bytes), ("a.gz", gzip.compress), ("a.zst", zstandard.compress)])
def test_lines_of_plain_and_compressed_files(write, name, pack):
    content = "\ufeffone\r\ntwo\n\nthrée".encode()
    assert list(lines(write(name, pack(content)))) == [b"one", b"two", b"", "thrée".encode()]


def test_names_as_spark_gives_them(write):
    assert list(lines("file://" + write("a", "one"))) == [b"one"]


def test_what_cannot_be_read_is_named(write):
    assert reason(lines, "/nowhere/at/all") == "unreadable_file"
    assert reason(lines, write("a.gz", gzip.compress(b"text " * 1000)[:-10])) == "unreadable_file"
    assert reason(json_file, write("b", "{")) == "invalid_json"
    assert reason(json_file, write("c", b'"\xff"')) == "invalid_encoding"
    assert reason(parse, b"[" * 100_000) == "invalid_json"
    assert reason(parse, b"9" * 5_000) == "invalid_json"


def test_json_lines_skip_blank_lines(write):
    assert list(json_lines(write("a", '{"a": 1}\n\n  \n2\n'))) == [b'{"a": 1}', b"2"]


def test_csv_fields_may_hold_line_breaks_and_rows_may_be_short(write):
    path = write("a.csv", 'n,text,more\r\n1,"two\r\nlines, ""quoted"""\r\n2,sepa\u2028rated,x,y\r\n')
    assert csv_rows(path, ("n", "text")) == [
        {"n": "1", "text": 'two\nlines, "quoted"', "more": ""},
        {"n": "2", "text": "sepa\u2028rated", "more": "x"},
    ]


def test_a_csv_without_a_required_column_is_refused(write):
    assert reason(csv_rows, write("a.csv", "n,text\n1,x\n"), ("section",)) == "invalid_record"
