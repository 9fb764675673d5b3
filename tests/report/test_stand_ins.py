"""What ran under the papers' names."""

from __future__ import annotations

from pathlib import Path

from megatron_distill.report.experiments import arrange
from megatron_distill.report.papers import PapersReport
from megatron_distill.report.records import find_runs
from megatron_distill.report.stand_ins import rows, sentence, stand_ins
from tests.support.records import write_experiment


def test_one_line_for_each_model_and_budget(papers_report: PapersReport) -> None:
    head, *lines = rows(papers_report.stand_ins)
    assert [(line[0], line[-1]) for line in lines] == [
        ("180M pretrained on 20B tokens", "1"),
        ("180M pretrained on 160B tokens", "1"),
        ("300M pretrained on 320B tokens", "1"),
        ("300M compressed on 20B tokens", "14"),
    ]
    assert lines[2] == (
        "300M pretrained on 320B tokens",
        "1,000,000",
        "303,515,648",
        "50,000",
        "320B",
        "24 layers × 64",
        "corpus, 1,024 token types, windows of 128",
        "CPU",
        "1",
    )
    assert all(len(line) == len(head) for line in lines)


def test_runs_of_the_papers_sizes_are_no_stand_ins(tmp_path: Path) -> None:
    sizes = {"parameters": 303_141_888, "tokens": 80_000 * 2_097_152}
    write_experiment(tmp_path / "base", perplexity=16.2, label=["model=300M", "checkpoint=160B"], **sizes)
    half = {"label": ["model=300M", "checkpoint=160B"], "layout": "max-gap", "removed": 12}
    sizes = {"parameters": 177_300_000, "tokens": 10_000 * 2_097_152}
    write_experiment(tmp_path / "compressed", perplexity=23.0, **half, **sizes)
    assert sentence(stand_ins(arrange(find_runs([tmp_path])[0]))) == ""


def test_unequal_runs_of_one_name_are_said(tmp_path: Path) -> None:
    label = ["model=180M", "checkpoint=20B"]
    for seed in (1, 2):
        write_experiment(tmp_path / str(seed), perplexity=60.0, label=label, seed=seed)
    assert "Unequal" not in sentence(stand_ins(arrange(find_runs([tmp_path])[0])))
    write_experiment(tmp_path / "3", perplexity=50.0, label=label, seed=3, tokens=90_000)
    found = stand_ins(arrange(find_runs([tmp_path])[0]))
    assert "Unequal runs share the name 180M pretrained on 20B tokens" in sentence(found)
    assert rows(found)[1][3] == "50,000–90,000"


def test_no_labels_at_all_is_said() -> None:
    assert "give runs a --label" in sentence([])


def test_fewer_tokens_alone_make_a_stand_in(tmp_path: Path) -> None:
    sizes = {"parameters": 303_141_888, "tokens": 20_000_000_000}
    write_experiment(tmp_path / "base", perplexity=16.2, label=["model=300M", "checkpoint=160B"], **sizes)
    assert "means 20,000,000,000 tokens" in sentence(stand_ins(arrange(find_runs([tmp_path])[0])))
