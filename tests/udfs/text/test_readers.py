"""Every format, plain and compressed, and every way a file can be broken."""

import gzip
import io
import json
import struct
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from udfs.text import readers
from udfs.text.readers import Record, as_metadata, detect_format, read_records

RECORDS = [{"text": "first", "n": 1}, {"text": "zweiter é 世界", "n": 2}, {"text": "third\nline", "n": 3}]


def _jsonl(records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def _parquet(records):
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), buffer, row_group_size=2)
    return buffer.getvalue()


def _read(path, **options):
    """Record ids with fields, and record ids with reasons."""
    found = list(read_records(str(path), **options))
    good = {item.record_id.rpartition("#")[2]: item.fields for item in found if isinstance(item, Record)}
    bad = {item["record_id"].rpartition("#")[2]: item["reason"] for item in found if not isinstance(item, Record)}
    assert len(good) + len(bad) == len(found)
    return good, bad


def _write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    return path


CONTENTS = {
    "a.jsonl": _jsonl(RECORDS),
    "a.json": json.dumps(RECORDS, indent=1).encode(),
    "a.parquet": _parquet(RECORDS),
    "a.csv": 'text,n\nfirst,1\nzweiter é 世界,2\n"third\nline",3\n'.encode(),
    "a.tsv": 'text\tn\nfirst\t1\nzweiter é 世界\t2\n"third\nline"\t3\n'.encode(),
}
COMPRESS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", CONTENTS)
def test_every_format_and_compression(tmp_path, name, suffix):
    path = _write(tmp_path, name + suffix, COMPRESS[suffix](CONTENTS[name]))
    good, bad = _read(f"file://{path}")
    assert not bad
    assert [(fields["text"], int(fields["n"])) for fields in good.values()] == [(r["text"], r["n"]) for r in RECORDS]
    assert list(good) == ["1", "2", "3"]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_plain_text_is_one_record(tmp_path, suffix):
    path = _write(tmp_path, f"a.txt{suffix}", COMPRESS[suffix]("\ufeffone\ntwo é".encode()))
    assert _read(path) == ({"1": {"text": "one\ntwo é"}}, {})


def test_record_id_is_file_and_number(tmp_path):
    path = _write(tmp_path, "ein Ordner%20.jsonl", b'{"text": "a"}\n')
    assert next(read_records(f"file:{path}")).record_id == f"{path}#1"


@pytest.mark.parametrize(
    ("name", "format"),
    [("x/a.JSONL.gz", "jsonl"), ("a.ndjson", "jsonl"), ("a.json.zst", "json"), ("README.md", None), ("noname", None)],
)
def test_format_by_name(name, format):
    assert detect_format(name) == format


def test_name_that_tells_no_format_is_a_reject_until_the_format_is_given(tmp_path):
    path = _write(tmp_path, "data.bin", b'{"text": "a"}\n')
    (found,) = read_records(str(path))
    assert found["reason"] == "unreadable_file" and "set `format`" in found["detail"]
    assert _read(path, format="jsonl") == ({"1": {"text": "a"}}, {})


def test_bad_lines_cost_themselves(tmp_path):
    lines = [
        b'\xef\xbb\xbf{"text": "with a byte order mark"}',
        b'{"text": ',
        b"",
        b'{"text": "caf\xe9"}',
        b'{"text": "\\ud800"}',
        b'{"text": "\\ud83d\\ude00"}',
        b'"only a text"',
        b"[1, 2]",
        b'{"n": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"text": "last, without a line end"}',
    ]
    path = _write(tmp_path, "a.jsonl", b"\n".join(lines))
    good, bad = _read(path)
    assert good == {
        "1": {"text": "with a byte order mark"},
        "6": {"text": "😀"},
        "7": {"text": "only a text"},
        "11": {"text": "last, without a line end"},
    }
    assert bad == {
        "2": "invalid_json",
        "4": "invalid_encoding",
        "5": "invalid_encoding",
        "8": "invalid_record",
        "9": "invalid_json",
        "10": "invalid_json",
    }
    for item in read_records(str(path)):  # every reject can be stored
        if not isinstance(item, Record):
            json.dumps(item, ensure_ascii=False).encode()


def test_unicode_line_separators_do_not_end_a_json_line(tmp_path):
    path = _write(tmp_path, "a.jsonl", '{"text": "a\u2028b\x85c"}\r\n{"text": "d"}\r\n'.encode())
    assert _read(path) == ({"1": {"text": "a\u2028b\x85c"}, "2": {"text": "d"}}, {})


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_truncated_compressed_file_gives_what_was_read_and_one_reject(tmp_path, suffix):
    records = [
        {"text": f"record {number} " + "x" * (number * 7919 % 90), "key": number * 48271} for number in range(9000)
    ]
    packed = COMPRESS[suffix](_jsonl(records))
    path = _write(tmp_path, f"a.jsonl{suffix}", packed[: len(packed) * 2 // 3])
    found = list(read_records(str(path)))
    good = [item.fields for item in found[:-1]]
    assert 1000 < len(good) < 9000 and good == records[: len(good)]
    assert found[-1]["reason"] == "unreadable_file" and found[-1]["record_id"] == f"{path}#{len(good) + 1}"


def test_corrupted_gzip_and_files_under_the_wrong_name(tmp_path):
    packed = bytearray(gzip.compress(_jsonl(RECORDS)))
    packed[-8] ^= 0xFF  # the checksum
    assert _read(_write(tmp_path, "sum.jsonl.gz", bytes(packed))) == ({}, {"1": "unreadable_file"})
    for name in ("a.jsonl.gz", "a.jsonl.zst", "a.parquet"):
        assert _read(_write(tmp_path, name, b"neither of these formats" * 9)) == ({}, {"1": "unreadable_file"})


def test_missing_file_and_folder_are_rejects(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("gone.jsonl", "folder.jsonl"):
        assert _read(tmp_path / name) == ({}, {"1": "unreadable_file"})


def test_failing_store_is_not_the_files_fault(tmp_path, monkeypatch):
    path = _write(tmp_path, "a.jsonl", b"")

    def fail(*_):
        raise TimeoutError(110, "connection timed out")

    monkeypatch.setattr(readers, "open_bytes", fail)
    with pytest.raises(TimeoutError):
        list(read_records(str(path)))


def test_zstd_frames_one_after_another(tmp_path):
    compress = zstandard.ZstdCompressor().compress
    skippable = struct.pack("<II", 0x184D2A50, 4) + b"skip"
    content = skippable + compress(_jsonl(RECORDS[:2])) + skippable + compress(_jsonl(RECORDS[2:]))
    good, bad = _read(_write(tmp_path, "a.jsonl.zst", content))
    assert [fields["n"] for fields in good.values()] == [1, 2, 3] and not bad


def test_gzip_members_one_after_another(tmp_path):
    content = gzip.compress(_jsonl(RECORDS[:2])) + gzip.compress(_jsonl(RECORDS[2:])) + b"\0" * 512
    good, bad = _read(_write(tmp_path, "a.jsonl.gz", content))
    assert [fields["n"] for fields in good.values()] == [1, 2, 3] and not bad


def test_json_file_shapes(tmp_path):
    pretty = json.dumps(RECORDS[0], indent=2)
    assert _read(_write(tmp_path, "object.json", pretty.encode()))[0] == {"1": RECORDS[0]}
    lines = b'{"text": "a"}\n{"text": bad}\n{"text": "b"}\n'
    assert _read(_write(tmp_path, "lines.json", lines)) == (
        {"1": {"text": "a"}, "3": {"text": "b"}},
        {"2": "invalid_json"},
    )
    broken = b'{\n "text": oops,\n "n": 1\n}\n{"text": "b"}'
    assert _read(_write(tmp_path, "broken.json", broken)) == ({"2": {"text": "b"}}, {"1": "invalid_json"})
    assert _read(_write(tmp_path, "empty.json", b" \n")) == ({}, {})
    assert _read(_write(tmp_path, "nothing.json", b"[]")) == ({}, {})


def test_broken_json_arrays_give_what_was_read(tmp_path):
    assert _read(_write(tmp_path, "open.json", b'[{"text": "a"}, {"text": "b"}'))[1] == {"3": "invalid_json"}
    assert _read(_write(tmp_path, "cut.json", b'[{"text": "a"}, {"te')) == (
        {"1": {"text": "a"}},
        {"2": "invalid_json"},
    )
    mixed = b'[{"text": "a"}, 7, {"text": "\\udc00"}, {"text": "caf\xe9"}, {"text": "b"}, -1.5e3]'
    assert _read(_write(tmp_path, "mixed.json", mixed)) == (
        {"1": {"text": "a"}, "5": {"text": "b"}},
        {"2": "invalid_record", "3": "invalid_encoding", "4": "invalid_encoding", "6": "invalid_record"},
    )


def test_what_follows_a_json_array_is_read_as_well(tmp_path):
    content = b'[{"text": "a"}]\n[{"text": "b"}, {"text": "c"}]\n[] {"text": "d"}\nrest'
    assert _read(_write(tmp_path, "a.json", content)) == (
        {"1": {"text": "a"}, "2": {"text": "b"}, "3": {"text": "c"}, "4": {"text": "d"}},
        {"5": "invalid_json"},
    )


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.text("abc", min_size=1), _VALUES)), st.sampled_from([None, 1]), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_json_array_is_read_whatever_the_block_size(records, indent, block):
    from udfs.text import json_window

    size, json_window._BLOCK = json_window._BLOCK, block
    try:
        window = json_window.JsonWindow(io.StringIO(json.dumps(records, indent=indent)), 1 << 20)
        assert window.skip("") == "["
        window.at += 1
        found = []
        while window.skip(",") != "]":
            found.append(window.value()[0])
    finally:
        json_window._BLOCK = size
    assert found == records


def test_a_csv_header_costs_no_record_and_no_field(tmp_path):
    path = _write(tmp_path, "a.csv", b"text,caf\xe9,text,text\nfirst,1,2,3\n")
    assert _read(path) == ({"1": {"text": "first", "caf\\xe9": "1", "text.2": "2", "text.3": "3"}}, {})


def test_bad_csv_rows_cost_themselves(tmp_path):
    content = b'\xef\xbb\xbftext,n\nok,1\ntoo,many,fields\n\ncaf\xe9,2\n"a"b,3\n' + b"\xe4\xb8\x96,4\n\x00null,5\n"
    good, bad = _read(_write(tmp_path, "a.csv", content))
    assert [fields["n"] for fields in good.values()] == ["1", "4", "5"]
    assert bad == {"2": "invalid_record", "3": "invalid_encoding", "4": "invalid_record"}
    assert _read(_write(tmp_path, "open.csv", b'text\nfine\n"never closed\nx\n')) == (
        {"1": {"text": "fine"}},
        {"2": "invalid_record"},
    )


ROWS = "".join(f"row {number},{number}\n" for number in range(3, 9))
CLOSED = '"never closed,1\n'
TEXT = "It goes on, as texts do.\nAnd on\nand on.\n"


@pytest.mark.parametrize(
    ("lost", "good", "payload", "began"),
    [
        # To the end of the file, or to the next quote: what follows are rows.
        (f'"never closed,1\n{ROWS}', "345678", CLOSED, "begins in line 2 ends in line 8: unexpected end"),
        (f'"never closed,1\n"two\nlines",2\n{ROWS}', "2345678", CLOSED, "begins in line 2 ends in line 3: "),
        (f'"never closed,1\n{ROWS}"two\nlines",2\n', "3456782", CLOSED, "begins in line 2 ends in line 9: "),
        # What follows is the rest of a text.
        (f'"cut off {TEXT}{TEXT}', "", None, "begins in line 2 ends in line 7: unexpected end"),
    ],
)
def test_a_csv_quote_that_is_never_closed_costs_its_own_row(tmp_path, lost, good, payload, began):
    found = list(read_records(str(_write(tmp_path, "a.csv", f"text,n\n{lost}".encode()))))
    assert "".join(item.fields["n"] for item in found if isinstance(item, Record)) == good
    (reject,) = [item for item in found if not isinstance(item, Record)]
    assert began in reject["detail"]
    assert reject["payload"] == (payload or lost)


def test_only_the_file_s_own_name_says_that_tabs_separate(tmp_path):
    (tmp_path / "made.from.tsvs").mkdir()
    path = _write(tmp_path / "made.from.tsvs", "a.csv", b"text,n\nfirst,1\n")
    assert _read(path) == ({"1": {"text": "first", "n": "1"}}, {})


def test_a_csv_header_that_cannot_be_read_makes_no_header_of_a_record(tmp_path):
    assert _read(_write(tmp_path, "a.csv", b'"text"s,n\nfirst,1\nsecond,2\n')) == ({}, {"1": "unreadable_file"})


def test_parquet_columns_of_one_name_are_all_kept(tmp_path):
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"]), tmp_path / "a.parquet")
    assert _read(tmp_path / "a.parquet") == ({"1": {"text": "a", "text.2": "b"}}, {})


def test_parquet_with_bytes_that_are_not_text(tmp_path):
    table = pa.table({"text": pa.array([b"ok", b"\xff", b"fine"]), "id": pa.array([b"\x00\xff", b"", b"a"])})
    pq.write_table(table, tmp_path / "a.parquet")
    assert _read(tmp_path / "a.parquet") == (
        {"1": {"text": "ok", "id": "\x00\\xff"}, "3": {"text": "fine", "id": "a"}},
        {"2": "invalid_encoding"},
    )
    invalid = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff\xfe", b"good"]).buffers())
    pq.write_table(pa.table({"text": invalid}), tmp_path / "b.parquet")
    assert _read(tmp_path / "b.parquet") == ({"2": {"text": "good"}}, {"1": "invalid_encoding"})


@pytest.mark.parametrize(
    "values",
    [
        pa.array([0, -(10**17)], pa.timestamp("us")),
        pa.array([0, 2**31 - 1], pa.date32()),
        pa.array([0, 2**62], pa.duration("s")),
        pa.array([None, 0], pa.timestamp("us", tz="Nowhere/Land")),
    ],
    ids=lambda values: str(values.type),
)
def test_parquet_with_a_time_that_python_cannot_hold(tmp_path, values):
    pq.write_table(pa.table({"text": ["good", "bad"], "at": values}), tmp_path / "a.parquet")
    good, bad = _read(tmp_path / "a.parquet")
    assert (list(good), bad) == (["1"], {"2": "invalid_record"})


def test_truncated_parquet_is_unreadable(tmp_path):
    path = _write(tmp_path, "a.parquet", _parquet(RECORDS)[:-20])
    assert _read(path) == ({}, {"1": "unreadable_file"})


def test_records_without_end_are_too_long_and_the_rest_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_RECORD_BYTES", 1000)
    lines = b'{"text": "' + b"x" * 200_000 + b'"}\n{"text": "short"}\n'
    assert _read(_write(tmp_path, "a.jsonl", lines)) == ({"2": {"text": "short"}}, {"1": "too_long"})
    assert _read(_write(tmp_path, "a.txt", b"x" * 1001)) == ({}, {"1": "too_long"})


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json", "a.csv"])
def test_memory_stays_flat(tmp_path, name):
    """Twenty megabytes are read in a few megabytes of memory."""
    text = "some words " * 100
    if name == "a.csv":
        content = ("text,n\n" + f"{text},1\n" * 20_000).encode()
    elif name == "a.json":
        content = ("[" + ",".join([json.dumps({"text": text})] * 20_000) + "]").encode()
    else:
        content = gzip.compress(_jsonl([{"text": text}] * 20_000), 1)
    path = _write(tmp_path, name, content)
    tracemalloc.start()
    assert sum(isinstance(item, Record) for item in read_records(str(path))) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


def test_metadata_are_strings():
    fields = {"text": "t", "title": "é", "n": 3, "none": None, "parts": [{"a": 1}], "flag": True}
    assert as_metadata(fields, "text") == {"title": "é", "n": "3", "parts": '[{"a": 1}]', "flag": "true"}


def test_augmented_corpora_hold_texts_objects_and_lists(tmp_path):
    folder = tmp_path / "part-0" / "shard"
    folder.mkdir(parents=True)
    lines = ['"a text"', '{"text": "an object"}', '["one", {"text": "two"}, 3]', "no json", "4", '"half \\ud800"']
    path = _write(folder, "00000.txt", "\n".join(lines).encode())
    assert detect_format(f"file:{path}") == "corpus"
    assert detect_format(str(tmp_path / "notes.txt")) == "text"
    found = list(read_records(str(path)))
    texts = [item.fields["text"] for item in found if isinstance(item, Record)]
    assert texts == ["a text", "an object", "one", "two"]
    reasons = [(item["record_id"][-1], item["reason"]) for item in found if not isinstance(item, Record)]
    assert reasons == [
        ("3", "invalid_record"),
        ("4", "invalid_json"),
        ("5", "invalid_record"),
        ("6", "invalid_encoding"),
    ]
