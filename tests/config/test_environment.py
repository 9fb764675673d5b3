"""The variables that torchrun sets."""

from __future__ import annotations

import pytest

from megatron_distill.config.environment import JobPlace, job_place, meeting_point
from megatron_distill.config.error import ConfigError


def test_without_torchrun_a_process_is_alone() -> None:
    assert job_place({}) == JobPlace() == JobPlace(size=1, rank=0, local_rank=0)


def test_a_place_in_a_job() -> None:
    given = {"WORLD_SIZE": "16", "RANK": "9", "LOCAL_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
    assert job_place(given) == JobPlace(size=16, rank=9, local_rank=1)
    assert meeting_point(given) == ("node0", 29500)
    assert job_place({"WORLD_SIZE": "16"}).size == 16  # a check before the ranks are started


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE='many', which is not a whole number"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE='', which is not a whole number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0, which must be at least 1"),
        ({"WORLD_SIZE": "1" + "0" * 30}, "at most 1,048,576"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, r"RANK=2, which must be at least 0 and below 2 \(WORLD_SIZE=2\)"),
        ({"RANK": "1"}, r"RANK=1, .* below 1 \(WORLD_SIZE=1\)"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK=-1"),
        ({"WORLD_SIZE": "2", "RANK": "x"}, "RANK='x'"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "99"}, "LOCAL_RANK=99"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": " "}, "LOCAL_RANK=' '"),
    ],
)
def test_what_cannot_be_a_place(variables: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        job_place(variables)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({}, "MASTER_ADDR is not set"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        ({"MASTER_ADDR": "node0"}, "MASTER_PORT is not set"),
        ({"MASTER_ADDR": "n\udcff", "MASTER_PORT": "1"}, "MASTER_ADDR='n.*', which is not the name of a machine"),
        ({"MASTER_ADDR": "node0", "MASTER_PORT": "http"}, "MASTER_PORT='http'"),
        ({"MASTER_ADDR": "node0", "MASTER_PORT": "70000"}, "MASTER_PORT=70000, which must be .* at most 65,535"),
    ],
)
def test_where_ranks_cannot_meet(variables: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        meeting_point({"WORLD_SIZE": "2"} | variables)
