"""A run resolved before it starts: steps, layers, FLOPs, where it begins."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from megatron_distill.checkpoint.manifest import read_manifest
from megatron_distill.config import cost
from megatron_distill.config.error import ConfigError
from megatron_distill.config.flags import parse
from megatron_distill.config.run import RunConfig
from megatron_distill.data.corpus_record import CorpusRecord, write_corpus_record
from megatron_distill.training.plan import RunPlan, make_plan
from tests.support.corpora import write_corpus
from tests.support.public_models import save_public_model
from tests.support.runs import MODEL, SMALL

PAPER = ["--model", "palm-300m-paper", "--seq-length", 2048, "--global-batch-size", 1024, "--nominal-tokens"]
TINY = ["--model", "palm-tiny", "--seq-length", 32, "--global-batch-size", 4, "--num-layers", 8]


def plan(save: Path, *flags: object, world_size: int = 1) -> RunPlan:
    """A plan without data."""
    return make_plan(parse(RunConfig, [*map(str, flags), "--save", str(save), "--dry-run"]), world_size)


def on_data(save: Path, corpus: Path, *flags: object) -> RunPlan:
    """The plan of a small run; later flags win."""
    common = [*MODEL, *SMALL, "--data-path", corpus, "--save", save, *flags]
    return make_plan(parse(RunConfig, [str(flag) for flag in common]), world_size=1)


def test_the_papers_schedule(tmp_path: Path) -> None:
    pruning = ["--pruning-layout", "max-gap", "--pruning-seed-tokens", "1B", "--pruning-gap-tokens", "500M"]
    found = plan(tmp_path, *PAPER, "--train-tokens", "20B", "--lr-warmup-tokens", "800M", *pruning)
    assert found.tokens_per_iter == 2_097_152
    assert (found.total_iters, found.warmup_iters) == (10_000, 400)
    assert found.removal is not None
    assert (found.removal.seed_iters, found.removal.gap_iters, found.last_removal) == (500, 250, 3250)
    assert len(found.layers_at(0)) == 24 and len(found.layers_at(10_000)) == 12


def test_true_tokens_need_fewer_steps_than_nominal_ones(tmp_path: Path) -> None:
    flags = [flag for flag in PAPER if flag != "--nominal-tokens"]
    found = plan(tmp_path, *flags, "--train-tokens", "20B", "--lr-warmup-tokens", "800M")
    assert (found.total_iters, found.warmup_iters) == (9537, 382)  # 20e9 / 2^21 and 8e8 / 2^21, rounded up


@pytest.mark.parametrize(
    ("flags", "warmup"),
    [((), 8), (("--lr-warmup-iters", 0), 0), (("--lr-warmup-iters", 7), 7), (("--lr-warmup-tokens", 129), 2)],
)
def test_warm_up_in_steps_tokens_or_four_percent(flags: tuple[object, ...], warmup: int, tmp_path: Path) -> None:
    found = plan(tmp_path, *TINY, "--train-iters", 200, *flags)
    assert (found.total_iters, found.warmup_iters, found.removal) == (200, warmup, None)


@pytest.mark.parametrize(
    ("flags", "removed"),
    [
        (("--pruning-layout", "input"), (1, 2, 3, 4)),  # half of eight
        (("--pruning-layout", "output", "--pruning-num-layers", 2), (5, 6)),
        (("--pruning-layout", "2,5-6"), (2, 5, 6)),
    ],
)
def test_which_layers_leave(flags: tuple[object, ...], removed: tuple[int, ...], tmp_path: Path) -> None:
    found = plan(tmp_path, *TINY, "--train-iters", 9, *flags)
    assert found.removal is not None and found.removal.removed == removed


def test_layers_leave_one_by_one_and_are_frozen_until_then(tmp_path: Path) -> None:
    tokens = 4 * 32
    schedule = ["--pruning-seed-tokens", 3 * tokens, "--pruning-gap-tokens", 2 * tokens]
    found = plan(tmp_path, *TINY, "--train-iters", 12, "--pruning-layout", "1,4,6", *schedule)
    everything = (0, 1, 2, 3, 4, 5, 6, 7)
    expected = {0: {1, 4, 6}, 2: {1, 4, 6}, 3: {4, 6}, 4: {4, 6}, 5: {6}, 6: {6}, 7: set(), 12: set()}
    for step, frozen in expected.items():
        assert found.frozen_at(step) == frozen, step
        assert found.layers_at(step) == tuple(i for i in everything if i not in {1, 4, 6} - frozen), step
    assert found.last_removal == 7


def test_without_pruning_nothing_leaves_and_nothing_is_frozen(tmp_path: Path) -> None:
    found = plan(tmp_path, *TINY, "--train-iters", 5)
    assert found.layers_at(0) == found.layers_at(5) == tuple(range(8))
    assert (found.frozen_at(0), found.last_removal) == (frozenset(), None)


def test_flops_are_the_sum_over_all_steps(tmp_path: Path) -> None:
    tokens = 4 * 32
    schedule = ["--pruning-seed-tokens", 3 * tokens, "--pruning-gap-tokens", 2 * tokens]
    found = plan(tmp_path, *TINY, "--vocab-size", 500, "--train-iters", 12, "--pruning-layout", "1,4,6", *schedule)
    layers = [8] * 3 + [7] * 2 + [6] * 2 + [5] * 5
    true = sum(tokens * cost.true_flops_per_token(n, 64, 128, 512, 32) for n in layers)
    parameters = cost.palm_parameters(5, 64, 128, 4, 512, bias=False, qk_norm="per-head")
    assert found.training_flops() == pytest.approx((true, 6.0 * parameters * tokens * 5), rel=1e-12)


def test_paper_flops_are_the_printed_ones(tmp_path: Path) -> None:
    pruning = ["--pruning-layout", "max-gap", "--pruning-seed-tokens", "1B"]
    _, paper = plan(tmp_path, *PAPER, "--train-tokens", "20B", *pruning).training_flops()
    assert round(paper / 1e18, 2) == 21.22  # arXiv:2305.14864v2, Table 4


def test_a_new_folder_starts_afresh(corpus: Path, tmp_path: Path) -> None:
    found = on_data(tmp_path / "new", corpus, "--train-iters", 5)
    assert (found.resume_from, found.load_from, found.start) == (None, None, 0)


def test_weights_of_another_run(base_run: Path, corpus: Path, tmp_path: Path) -> None:
    found = on_data(tmp_path / "new", corpus, "--num-layers", 6, "--train-iters", 5, "--load", base_run)
    assert found.load_from == base_run / "checkpoints" / "iter_0000030"
    assert (found.resume_from, found.start) == (None, 0)
    assert found.initial_layers == tuple(range(6))


def test_its_own_checkpoint_comes_first(base_run: Path, corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(base_run, run)
    flags = ["--num-layers", 6, "--train-iters", 40, "--override-lr-schedule"]
    for load in ([], ["--load", base_run]):
        found = on_data(run, corpus, *flags, *load)
        assert found.resume_from == run / "checkpoints" / "iter_0000030"
        assert (found.load_from, found.start) == (None, 30)


def test_another_length_is_refused_where_the_learning_rate_would_jump(
    base_run: Path, corpus: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(base_run, run)
    longer = ["--num-layers", 6, "--train-iters", 40]
    with pytest.raises(
        ConfigError, match=r"over 30 steps, not 40: at step 31 it would go from 0.0003 to 0.000\d+; give"
    ):
        on_data(run, corpus, *longer)
    for free in (["--override-lr-schedule"], ["--lr-decay-style", "constant"]):
        assert on_data(run, corpus, *longer, *free).total_iters == 40
    assert on_data(run, corpus, "--num-layers", 6, "--train-iters", 30, "--lr", 1e-4).start == 30


def test_model_flags_may_be_left_out_when_weights_are_loaded(base_run: Path, corpus: Path, tmp_path: Path) -> None:
    flags = [*SMALL, "--data-path", corpus, "--save", tmp_path / "new", "--load", base_run, "--train-iters", 5]
    found = make_plan(parse(RunConfig, [str(flag) for flag in flags]), world_size=1)
    assert (found.shape.num_layers, found.shape.vocab_size, found.shape.padded_vocab_size) == (6, 60, 64)


def test_a_run_that_lost_layers_does_not_go_on_with_them(base_run: Path, corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(base_run, run)
    with pytest.raises(ConfigError, match=r"holds layers \[0, 1, 2, 3, 4, 5\] at step 30, but .* needs \[0, .*, 7\]"):
        folder = run / "checkpoints" / "iter_0000030"
        manifest = read_manifest(folder)
        replace(manifest, shape=replace(manifest.shape, num_layers=8)).write(folder)
        on_data(run, corpus, "--num-layers", 8, "--train-iters", 40)


def test_planning_writes_nothing(corpus: Path, tmp_path: Path) -> None:
    on_data(tmp_path / "deep" / "run", corpus, "--train-iters", 5)
    assert list(tmp_path.iterdir()) == []


def test_a_small_corpus_is_searched_for_tokens_the_model_does_not_know(tmp_path: Path) -> None:
    valid = write_corpus(tmp_path / "valid", vocab=70)
    corpus = write_corpus(tmp_path / "text")
    with pytest.raises(ConfigError, match="--valid-data-path .*valid has token 69, but the model knows only 60"):
        on_data(tmp_path / "run", corpus, "--train-iters", 5, "--valid-data-path", valid)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a GPT-2 and a Llama, as from-hf writes them."""
    from megatron_distill.checkpoint.from_hf import import_model

    folder = tmp_path_factory.mktemp("public")
    for name in ("gpt2", "llama"):
        import_model(save_public_model(name, folder / f"{name}-hf"), folder / name)
    return folder


@pytest.mark.parametrize(
    ("name", "flags", "says"),
    [
        ("llama", ("--tensor-model-parallel-size", 4), "the 2 key and value heads of the model must be a multiple of"),
        ("gpt2", ("--seq-length", 65), "--seq-length 65 must be at most 64, the positions that the model of"),
        ("llama", ("--num-layers", 4), "--num-layers does not go with .*, a llama model that says itself what it is"),
    ],
)
def test_what_a_public_model_cannot_do(
    name: str, flags: tuple[object, ...], says: str, public: Path, tmp_path: Path
) -> None:
    common = ["--seq-length", 32, "--global-batch-size", 4, "--train-iters", 5, "--load", public / name]
    with pytest.raises(ConfigError, match=says):
        plan(tmp_path / "run", *common, *flags, world_size=4)


def test_a_public_model_is_planned_as_what_it_is(public: Path, tmp_path: Path) -> None:
    flags = ["--seq-length", 128, "--max-position-embeddings", 4096, "--global-batch-size", 4, "--train-iters", 5]
    found = plan(tmp_path / "run", *flags, "--load", public / "llama", "--tensor-model-parallel-size", 2, world_size=2)
    assert (found.shape.family, found.initial_layers) == ("llama", (0, 1, 2, 3))
    attention, mlp = 64 * 16 * (2 * 4 + 2 * 2), 3 * 64 * 104
    assert found.shape.num_parameters() == 4 * (attention + mlp + 2 * 64) + 2 * 128 * 64 + 64


EODS = ["--eod-mask-loss", "--train-iters", 5]


def test_the_end_token_is_the_one_that_the_corpus_records(tmp_path: Path) -> None:
    def corpus(name: str, eod: int | None) -> Path:
        prefix = write_corpus(tmp_path / name)
        record = CorpusRecord(tokenizer="1", vocab_size=60, eod_id=eod, bos_id=None, num_documents=40, num_tokens=8000)
        write_corpus_record(prefix, record)
        return prefix

    seven, also, eight, none = corpus("a", 7), corpus("b", 7), corpus("c", 8), corpus("d", None)
    unknown = write_corpus(tmp_path / "e")
    assert on_data(tmp_path / "run", seven, *EODS).eod_token == 7
    assert on_data(tmp_path / "run", seven, *EODS, "--data-path", seven, also, unknown).eod_token == 7
    assert on_data(tmp_path / "run", seven, *EODS, "--eod-token", 9).eod_token == 9
    with pytest.raises(ConfigError, match=r"with different tokens: .*a with 7, .*c with 8; give --eod-token"):
        on_data(tmp_path / "run", seven, *EODS, "--data-path", seven, eight)
    with pytest.raises(ConfigError, match="d was made with --no-append-eod, so no token ends its documents"):
        on_data(tmp_path / "run", none, *EODS)
    with pytest.raises(ConfigError, match="need --tokenizer or --eod-token: no corpus of --data-path records"):
        on_data(tmp_path / "run", unknown, *EODS)


@pytest.mark.parametrize("gap", [[], ["--pruning-gap-tokens", str(3 * 128)]])
@pytest.mark.parametrize("taught", [[], ["--loss", "vanilla", "minilm", "--teacher-placement", "colocated"]])
def test_flops_of_a_run_are_those_of_its_steps(gap: list[str], taught: list[str], tmp_path: Path) -> None:
    flags = ["--num-layers", "8", "--seq-length", "32", "--global-batch-size", "4", "--train-iters", "40"]
    pruning = ["--pruning-layout", "2,4,5", "--pruning-seed-tokens", str(7 * 128), *gap]
    found = plan(tmp_path, *flags, *pruning, *taught)
    assert [step for phase in found.phases for step in phase] == list(range(40))
    assert found.training_flops()[0] == pytest.approx(sum(map(found.step_flops, range(40))), rel=1e-12)
    student, teacher = found.flops_per_token(39)
    assert found.step_flops(39) == 128 * (student + teacher) and (teacher > 0) == bool(taught)
    removals = [at for at, _ in found.removal.removal_iterations()] if found.removal else []
    measured = [step for step in range(40) if found.measures_at(step)]
    assert measured == (sorted({found.distils_from, *removals}) if taught else [])
    for phase in found.phases:
        assert len({found.flops_per_token(step) for step in phase}) == 1


def test_a_plan_of_a_billion_steps_takes_no_loop_over_them(tmp_path: Path) -> None:
    found = plan(tmp_path, "--train-iters", "1000000000", "--pruning-layout", "1", "--pruning-seed-tokens", "1B")
    assert len(found.phases) == 2
    assert found.training_flops()[0] > 1e15
