"""Documents out of text files, and what is said when a file is damaged."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.data.prepare.corpus import expand, read_documents

TEXTS = ["one", "zwei\nZeilen", "", "日本 😀", "tab\tand \u2028 and \x00", '"quoted" \\ back']


def lines(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text, "url": "x"}).encode() + b"\n" for text in texts)


def test_json_lines_are_documents(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(*TEXTS))
    assert list(read_documents(path)) == TEXTS


@pytest.mark.parametrize("name", ["c4-train.00000-of-01024.json.gz", "a.jsonl.gz"])
def test_gzip_is_read_through(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(lines(*TEXTS[:3])) + gzip.compress(lines(*TEXTS[3:])))  # members, as pigz writes
    assert list(read_documents(path)) == TEXTS


def test_text_that_is_not_escaped_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"text": "é\u2028\x85日本"}, ensure_ascii=False) + "\r\n\n  \n" + '{"text": "b"}')
    assert list(read_documents(path)) == ["é\u2028\x85日本", "b"]


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"first\r\n\r\nsecond\n")
    assert list(read_documents(path)) == ["first\n\nsecond\n"]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    for name in ("a.jsonl", "a.jsonl.gz"):
        data = mark + lines("one", "\ufefftwo")
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
        assert list(read_documents(tmp_path / name)) == ["one", "\ufefftwo"]
    (tmp_path / "a.txt").write_bytes(mark + "text\ufeff".encode())
    assert list(read_documents(tmp_path / "a.txt")) == ["text\ufeff"]


def test_another_field_may_hold_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"content": "yes", "text": "no"}')
    assert list(read_documents(path, "content")) == ["yes"]


BAD_LINES = {
    "not JSON": (b'{"text": "cut', r"not JSON at column 10 \(Unterminated string starting\)"),
    "not an object": (b'["text"]', r"not a JSON object but list; a line must hold one object, which `jq"),
    "an array over lines": (b"[", r"not JSON at column 2 \(Expecting value\); a line must hold one object, which `jq"),
    "no field": (b'{"url": "x", "body": "y"}', r"no 'text' among its fields url, body; give another --text-key"),
    "no fields": (b"{}", r"no 'text' among its fields \(none\)"),
    "null": (b'{"text": null}', r"'text' holds no text but NoneType"),
    "a number": (b'{"text": 3}', r"'text' holds no text but int"),
    "not UTF-8": (b'{"text": "\xff"}', r"not UTF-8 \(invalid start byte\)"),
    "UTF-16": ('{"text": "a"}'.encode("utf-16"), r"not UTF-8"),
    "half a surrogate pair": (rb'{"text": "a\ud800b"}', r"'text' holds half a surrogate pair \('\\ud800'\)"),
    "a huge number": (b'{"n": ' + b"1" * 5000 + b"}", r"JSON that Python does not read"),
    "endless brackets": (b"[" * 100_000, r"JSON that Python does not read"),
}


@pytest.mark.parametrize("kind", BAD_LINES)
def test_a_bad_line_is_named(tmp_path: Path, kind: str) -> None:
    line, says = BAD_LINES[kind]
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines("one", "two") + line + b"\n" + lines("four"))
    documents = read_documents(path)
    assert [next(documents), next(documents)] == ["one", "two"]
    with pytest.raises(ConfigError, match=rf"a\.jsonl, line 3: {says}"):
        next(documents)


def test_a_bad_line_deep_in_a_gzip_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(lines(*map(str, range(5000))) + b'{"text": "\xc3"}\n' + lines("last")))
    with pytest.raises(ConfigError, match=r"a\.json\.gz, line 5001: not UTF-8"):
        list(read_documents(path))


def test_a_gzip_file_that_is_cut_off_is_said_after_its_last_sound_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(lines(*map(str, range(5000))))[:-2000])
    with pytest.raises(
        ConfigError, match=r"a\.json\.gz, after line \d+: the gzip file is damaged or cut off"
    ) as raised:
        list(read_documents(path))
    assert "after line 0:" not in str(raised.value)


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"plain text", lambda data: data[:10] + b"\x07" + data[11:], lambda data: data[:-8] + b"\0" * 8],
    ids=["no gzip", "no deflate block", "bad checksum"],
)
def test_a_damaged_gzip_file_is_said(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(damage(gzip.compress(lines(*TEXTS))))
    with pytest.raises(ConfigError, match=r"a\.jsonl\.gz, after line \d+: the gzip file is damaged"):
        list(read_documents(path))


def test_a_text_file_that_is_not_utf8_is_said_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntwo\nlatin \xe9\n")
    with pytest.raises(ConfigError, match=r"a\.txt, line 3: not UTF-8"):
        list(read_documents(path))


def test_globs_are_sorted_and_names_keep_their_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl", "z.txt", "[x].txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = expand([f"{tmp_path}/z.txt", f"{tmp_path}/**/*.jsonl", f"{tmp_path}/[x].txt"])
    assert [path.name for path in found] == ["z.txt", "a.jsonl", "b.jsonl", "c.jsonl", "[x].txt"]


@pytest.mark.parametrize("pattern", ["missing.jsonl", "*.parquet"])
def test_a_pattern_without_a_file_is_said(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ConfigError, match="there is no file .*" + pattern.replace("*", r"\*")):
        expand([f"{tmp_path}/{pattern}"])


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.txt.gz", "jsonl"])
def test_a_kind_of_file_nobody_reads_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=rf"{name} has none of the endings \.jsonl, "):
        expand([str(tmp_path / name)])


@pytest.mark.parametrize(
    ("name", "usual"), [("a.JSONL", "a.jsonl"), ("a.ndjson", "a.jsonl"), ("a.Json.GZ", "a.json.gz")]
)
def test_an_unusual_ending_is_said_with_the_usual_one(tmp_path: Path, name: str, usual: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=rf"{name} has none of the endings .*; it would be read as {usual}"):
        expand([str(tmp_path / name)])


def test_pipes_and_folders_are_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ConfigError, match=r"pipe\.jsonl is no file but a pipe or a device"):
        expand([str(tmp_path / "pipe.jsonl")])
    with pytest.raises(ConfigError, match=r"folder\.jsonl is no file but a folder; give the files in it"):
        expand([f"{tmp_path}/*.jsonl"])
