"""What an earlier run with the same output has left, and how much of it can be used."""

from __future__ import annotations

from collections.abc import Sequence

from megatron_distill.config.error import ConfigError

from .merge import Merge
from .part_maker import Job
from .parts import Record
from .parts_folder import own_files, remove


def find_parts(jobs: Sequence[Job], merge: Merge) -> dict[int, Record]:
    """Records, by number, of the parts whose files are as they were written; the files of all others are removed."""
    records, num_damaged = _read_records(jobs)
    if merge.has_begun:
        if len(records) == len(jobs):
            files, whole = [job.files for job in jobs], [records[number] for number in range(len(jobs))]
            if merge.can_go_on(files, whole):
                return records
        merge.start_anew()
    found = len(records)
    records = {n: record for n, record in records.items() if jobs[n].files.are_whole(record)}
    num_damaged += found - len(records)
    kept = {path for n in records for path in (jobs[n].files.bin, jobs[n].files.idx, jobs[n].files.record)}
    stale = [path for path in own_files(merge.folder) if path not in kept]
    num_others = sum(path.suffix == ".json" for path in stale) - num_damaged
    remove(stale)
    if records:
        merge.say(f"{len(records)} of {len(jobs)} parts are there from an earlier run")
    if num_damaged:
        merge.say(f"{num_damaged} parts of an earlier run are damaged and will be made anew")
    if num_others:
        merge.say(f"{num_others} parts of another text, tokenizer or flag are there and will be made anew")
    return records


def _read_records(jobs: Sequence[Job]) -> tuple[dict[int, Record], int]:
    """Records of these jobs by number, and how many are damaged."""
    records: dict[int, Record] = {}
    num_damaged = 0
    for job in jobs:
        try:
            record = job.files.read_record()
        except ConfigError:
            num_damaged += 1
            continue
        if record is not None and record.key == job.key:
            records[job.files.number] = record
    return records, num_damaged
