"""What a user can get wrong: one sentence that says what to do, exit code 2, and nothing lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.config.flags import parse
from megatron_distill.config.run import RunConfig
from megatron_distill.training.plan import make_plan
from tests.support.cluster import forked
from tests.support.corpora import write_corpus
from tests.support.runs import MODEL, ROOT, SMALL, command, environment, start

WRONG = [  # flags, ranks, what the sentence must hold
    (["--tensor-model-parallel-size", "3"], 3, ["--num-attention-heads 4", "--tensor-model-parallel-size 3"]),
    (["--num-layers", "5", "--pipeline-model-parallel-size", "2"], 2, ["5 layers", "--pipeline-model-parallel-size 2"]),
    (
        ["--pruning-layout", "1", "--pipeline-model-parallel-size", "2"],
        2,
        ["3 layers after pruning", "--pipeline-model-parallel-size 2"],
    ),
    (["--tensor-model-parallel-size", "2"], 3, ["3 ranks", "--tensor-model-parallel-size 2"]),
    (["--micro-batch-size", "3"], 1, ["--global-batch-size 4", "--micro-batch-size 3"]),
    (["--global-batch-size", "2"], 2, ["--global-batch-size 2", "data-parallel size 2"]),
    (["--vocab-size", "40"], 1, ["token 59", "40 tokens", "--vocab-size"]),
    (["--hidden-size", "66"], 1, ["--hidden-size 66", "--num-attention-heads 4"]),
    (["--pruning-layout", "max-gap", "--pruning-num-layers", "3"], 1, ["--pruning-num-layers 3", "between 1 and 2"]),
    (["--pruning-layout", "0,1"], 1, ["0", "first and the last stay"]),
    (["--pruning-layout", "maxgap"], 1, ["maxgap", "max-gap"]),
    (["--pruning-layout", "max-gap", "--pruning-seed-tokens", "1M"], 1, ["the run has only 4 steps"]),
    (["--pruning-layout", "max-gap", "--pruning-seed-tokens", "1X"], 1, ["'1X' is not a number of tokens"]),
    (["--tensor-model-paralel-size", "2"], 1, ["--tensor-model-paralel-size", "did you mean --tensor-model-parallel"]),
    (["--no-such-thing"], 1, ["there is no flag --no-such-thing", "--help"]),
    (["stray"], 1, ["'stray'", "flags start with --"]),
    (["--lr", "fast"], 1, ["--lr", "'fast' is not a number"]),
    (["--lr", "nan"], 1, ["--lr", "'nan' is not a finite number"]),
    (["--lr", "-1"], 1, ["--lr -1 must be at least 0"]),
    (["--beta2", "1.0"], 1, ["--beta2 1.0 must be at least 0 and below 1"]),
    (["--micro-batch-size", "2.5"], 1, ["'2.5' is not a whole number"]),
    (["--optimizer", "adam"], 1, ["'adam'", "'lion', 'adamw'"]),
    (["--optimizer", "adamw"], 1, ["--decay-semantics lr"]),
    (["--train-tokens", "1M"], 1, ["exactly one of --train-iters and --train-tokens"]),
    (["--lr-warmup-iters", "4"], 1, ["warm-up of 4 steps", "run of 4 steps"]),
    (["--split", "1,2,3,4"], 1, ["--split 1,2,3,4"]),
    (["--split", "1,99,0", "--seq-length", "256"], 1, ["fewer than the 256 + 1", "--split"]),
    (["--seq-length", "4096"], 1, ["--seq-length 4096", "--max-position-embeddings"]),
    (["--load", "/no/such/run"], 1, ["/no/such/run"]),
    (["--tokenizer", "/no/such/tokenizer.json"], 1, ["/no/such/tokenizer.json"]),
    (["--save", "/dev/null/run"], 1, ["/dev/null", "not a folder"]),
    (["--model", "palm-300"], 1, ["palm-300 is not known", "did you mean palm-300m"]),
    (["@/no/such/flags.txt"], 1, ["no file of flags /no/such/flags.txt"]),
    (["--wandb-project", "x"], 1, ["pip install wandb"]),
    (["--data-path", "0", "prose", "1", "code"], 1, ["--data-path gives prose the weight 0.0", "above 0"]),
    (["--data-path", "0.7", "prose", "code"], 1, ["--data-path 0.7 prose code", "a weight before each"]),
    (["--valid-data-path", "1", "/no/such"], 1, ["no file /no/such.idx"]),
    (["--data-order", "shuffled"], 1, ["'shuffled'", "'stream', 'megatron'"]),
    (["--data-order", "megatron", "--seed", "-1"], 1, ["--seed -1", "--data-order megatron"]),
    (["--data-order", "megatron", "--random-offset"], 1, ["--random-offset", "--data-order stream"]),
    (["--random-offset", "--split", "1,49,0", "--seq-length", "128"], 1, ["fewer than the 128 x 2", "--split"]),
    (["--pruning-seed-tokens", "1M"], 1, ["--pruning-seed-tokens needs --pruning-layout"]),
    (["--pruning-gap-tokens", "1M"], 1, ["--pruning-gap-tokens needs --pruning-layout"]),
    (["--pruning-layout", ""], 1, ["--pruning-layout is empty"]),
    (["--load", ""], 1, ["--load is empty; is a variable unset?"]),
    (["--data-path", "1e308", "a", "1e308", "b"], 1, ["the weight 1e+308", "at most 1e+09"]),
    (["--bf16"], 1, ["there is no flag --bf16", "--precision bf16"]),
    (["--context-parallel-size", "2"], 1, ["there is no flag --context-parallel-size", "not split"]),
    (["--bridge-topk", "8"], 1, ["did you mean --bridge-top-k?"]),
    (["--eod-mask-loss"], 1, ["--eod-mask-loss", "--tokenizer or --eod-token"]),
    (["--reset-position-ids", "--eod-token", "60"], 1, ["--eod-token 60", "below the 60 tokens"]),
]


@pytest.mark.parametrize(("flags", "ranks", "says"), WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_one_sentence_before_anything_starts(
    flags: list[str], ranks: int, says: list[str], corpus: Path, tmp_path: Path
) -> None:
    common = [*MODEL, *SMALL, "--data-path", str(corpus), "--train-iters", "4", "--save", str(tmp_path / "run")]
    with pytest.raises(ConfigError) as caught:
        make_plan(parse(RunConfig, [*common, *flags]), world_size=ranks)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for part in says:
        assert part in sentence
    assert list(tmp_path.iterdir()) == []


def test_the_program_says_it_and_exits_with_2(corpus: Path, tmp_path: Path) -> None:
    done = start(*MODEL, *SMALL, "--data-path", corpus, "--train-itres", 4, "--save", tmp_path / "run", check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "pretrain_distill.py: there is no flag --train-itres; did you mean --train-iters?\n"


def test_torchrun_workers_say_it_once(corpus: Path, tmp_path: Path) -> None:
    flags = [*MODEL, *SMALL, "--data-path", corpus, "--train-iters", 4, "--save", tmp_path / "run"]
    torchrun = command(*flags, "--tensor-model-parallel-size", 3, ranks=2)
    done = subprocess.run(torchrun, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=120)
    assert done.returncode != 0  # torchrun's own: it reports exit code 2 of the workers and exits with 1
    assert done.stderr.count("pretrain_distill.py: --num-attention-heads 4 must be") == 1
    assert "Traceback (most recent call last)" not in done.stderr.split("pretrain_distill.py FAILED")[0].split("E1")[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("missing", ["--data-path", "--save", "--train-iters"])
def test_what_is_missing_is_named(missing: str, corpus: Path, tmp_path: Path) -> None:
    pairs = {"--data-path": str(corpus), "--train-iters": "4", "--save": str(tmp_path / "run")}
    flags = [part for name, value in pairs.items() if name != missing for part in (name, value)]
    with pytest.raises(ConfigError, match=missing):
        make_plan(parse(RunConfig, [*MODEL, *SMALL, *flags]), world_size=1)


def plan_with(prefix: Path, tmp_path: Path, *flags: str) -> None:
    common = [*MODEL, *SMALL, "--data-path", str(prefix), "--train-iters", "4", "--save", str(tmp_path / "run")]
    make_plan(parse(RunConfig, [*common, *flags]), world_size=1)


def test_a_corpus_of_another_tokenizer_in_a_blend(corpus: Path, tmp_path: Path) -> None:
    other = write_corpus(tmp_path / "other", vocab=200)
    blend = ["--data-path", "1", str(corpus), "1", str(other)]
    with pytest.raises(ConfigError, match=f"--data-path {other} has token 199, but the model knows only 60 tokens"):
        plan_with(corpus, tmp_path, *blend)
    with pytest.raises(ConfigError, match=f"--valid-data-path {other} has token 199"):
        plan_with(corpus, tmp_path, "--valid-data-path", str(other))


def test_a_run_longer_than_one_pass_of_a_blend_without_weights(corpus: Path, tmp_path: Path) -> None:
    blend = ["--data-path", str(corpus), str(corpus), "--data-order", "megatron"]
    plan_with(corpus, tmp_path, *blend)
    with pytest.raises(ConfigError, match="486 samples in one pass, but the run reads 4,000; .* a weight before each"):
        plan_with(corpus, tmp_path, *blend, "--train-iters", "1000")


@pytest.mark.parametrize("kind", ["bin", "idx"])
def test_a_missing_file_of_the_corpus(kind: str, tmp_path: Path) -> None:
    prefix = write_corpus(tmp_path / "text")
    Path(f"{prefix}.{kind}").unlink()
    with pytest.raises(ConfigError, match=f"there is no file {prefix}.{kind}"):
        plan_with(prefix, tmp_path)


@pytest.mark.parametrize("kind", ["bin", "idx"])
def test_a_corpus_that_was_cut_off(kind: str, tmp_path: Path) -> None:
    prefix = write_corpus(tmp_path / "text")
    path = Path(f"{prefix}.{kind}")
    os.truncate(path, path.stat().st_size - 2)
    with pytest.raises(ConfigError, match=rf"text\.{kind} .*tools/preprocess_data\.py"):
        plan_with(prefix, tmp_path)


def test_a_checkpoint_of_another_architecture(base_run: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its hidden_size is 64, this run's is 128"):
        plan_with(corpus, tmp_path, "--load", str(base_run), "--num-layers", "6", "--hidden-size", "128")
    with pytest.raises(ConfigError, match="its num_layers is 6, this run's is 4"):
        plan_with(corpus, tmp_path, "--load", str(base_run))
    with pytest.raises(ConfigError, match="its add_bias_linear is False, this run's is True"):
        plan_with(corpus, tmp_path, "--load", str(base_run), "--num-layers", "6", "--model", "palm-tiny-paper")


def test_a_run_folder_is_not_overwritten_by_another_run(base_run: Path, corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(base_run, run)
    before = sorted(p.relative_to(run) for p in run.rglob("*"))
    with pytest.raises(ConfigError, match="holds another model"):
        plan_with(corpus, tmp_path)
    with pytest.raises(ConfigError, match="was trained with --optimizer lion, not adamw"):
        plan_with(corpus, tmp_path, "--num-layers", "6", "--optimizer", "adamw", "--decay-semantics", "lr")
    assert sorted(p.relative_to(run) for p in run.rglob("*")) == before


def test_dry_run_needs_no_data_and_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['megatron'] = None; import pretrain_distill as p;"
        "sys.exit(p.main(sys.argv[1:]))"
    )
    flags = ["--model", "palm-1.1b-paper", "--train-tokens", "20B", "--global-batch-size", "1024", "--save", "x"]
    flags += ["--nominal-tokens", "--pruning-layout", "max-gap", "--pruning-seed-tokens", "1B", "--dry-run"]
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "1,110,347,776 parameters" in done.stdout
    assert "(606,687,232 parameters)" in done.stdout
    assert "before step 501: layers 1, 3, 5" in done.stdout


SEPARATE, COLOCATED = ["--teacher-placement", "separate"], ["--teacher-placement", "colocated"]
VANILLA = ["--loss", "vanilla"]
UNTAUGHT = [  # flags of a run with --load, ranks, what the sentence must hold
    (VANILLA, 2, ["--loss vanilla needs --teacher-placement separate or colocated"]),
    (SEPARATE, 2, ["--teacher-placement separate needs --loss"]),
    (["--lm-weight", "0"], 1, ["--lm-weight needs --loss"]),
    (["--teacher-load", "x"], 1, ["--teacher-load needs --teacher-placement"]),
    (
        [*COLOCATED, *VANILLA, "--pipeline-model-parallel-size", "2"],
        2,
        ["colocated", "needs --pipeline-model", "not 2"],
    ),
    (
        [*COLOCATED, *VANILLA, "--teacher-data-parallel-size", "2"],
        2,
        ["--teacher-data-parallel-size needs", "separate"],
    ),
    ([*SEPARATE, *VANILLA], 1, ["1 rank,", "1 are the teacher's", "start another number"]),
    (
        [*SEPARATE, *VANILLA, "--teacher-tensor-model-parallel-size", "2", "--pipeline-model-parallel-size", "2"],
        5,
        ["5 ranks", "2 are the teacher's", "the other 3", "--pipeline-model-parallel-size 2"],
    ),
    (
        [*SEPARATE, *VANILLA, "--teacher-data-parallel-size", "2", "--global-batch-size", "6"],
        5,
        ["--teacher-data-parallel-size 2", "data-parallel size 3", "divide one another"],
    ),
    (
        [*SEPARATE, *VANILLA, "--teacher-tensor-model-parallel-size", "3", "--seq-length", "33"],
        4,
        ["heads", "--teacher-"],
    ),
    ([*SEPARATE, *VANILLA, "--teacher-tensor-model-parallel-size", "3"], 4, ["--seq-length 32", "--teacher-tensor"]),
    ([*SEPARATE, *VANILLA, "--teacher-pipeline-model-parallel-size", "4"], 5, ["6 layers", "--teacher-pipeline", "4"]),
    ([*SEPARATE, *VANILLA, "--teacher-sequence-parallel"], 2, ["--teacher-sequence-parallel needs"]),
    ([*SEPARATE, *VANILLA, "--teacher-load", "/no/such/teacher"], 2, ["/no/such/teacher"]),
    ([*SEPARATE, *VANILLA, "--bridge-credits", "0"], 2, ["--bridge-credits 0 must be at least 1"]),
    ([*SEPARATE, *VANILLA, "--bridge-wire", "pigeons"], 2, ["'pigeons'", "'hidden', 'logits', 'topk'"]),
    ([*SEPARATE, *VANILLA, "--bridge-wire", "topk", "--bridge-top-k", "65"], 2, ["--bridge-top-k 65", "64"]),
    ([*COLOCATED, "--loss", "vanila"], 1, ["no loss is called vanila", "did you mean vanilla?"]),
    ([*COLOCATED, "--loss", "kl"], 1, ["it is a divergence", "vanilla:divergence=forward-kl"]),
    ([*COLOCATED, "--loss", "tvd"], 1, ["vanilla:divergence=tvd"]),
    ([*COLOCATED, "--loss", "hidden-cosine"], 1, ["no loss is called hidden-cosine, or none that has a known cost"]),
    (["--scale-momentum", "0.5"], 1, ["--scale-momentum needs --loss"]),
    (["--no-normalise-losses"], 1, ["--no-normalise-losses needs --loss"]),
    (["--bridge-credits", "8"], 1, ["--bridge-credits needs --teacher-placement separate"]),
    ([*COLOCATED, *VANILLA, "--bridge-wire", "logits"], 1, ["--bridge-wire needs --teacher-placement separate"]),
    ([*SEPARATE, *VANILLA, "--bridge-top-k", "8"], 2, ["--bridge-top-k needs --bridge-wire topk"]),
    ([*COLOCATED, "--loss", "vanilla:heat=2"], 1, ["vanilla does not take heat", "temperature"]),
    ([*COLOCATED, "--loss", "vanilla:temperature"], 1, ["--loss vanilla:temperature must be NAME", "KEY=VALUE"]),
    ([*COLOCATED, "--loss", ":weight=2"], 1, ["--loss :weight=2 must be NAME"]),
    ([*COLOCATED, "--loss", "vanilla:weight=-1"], 1, ["weight=-1 must be a number of at least 0"]),
    ([*COLOCATED, "--loss", "vanilla:weight=heavy"], 1, ["weight=heavy must be a number"]),
    ([*COLOCATED, "--loss", "vanilla:temperature=0"], 1, ["temperature 0 must be above 0"]),
    ([*COLOCATED, "--loss", "vanilla:temperature=hot"], 1, ["temperature", "hot"]),
    ([*COLOCATED, "--loss", "vanilla:divergence=kl"], 1, ["kl", "forward-kl"]),
    ([*COLOCATED, "--loss", "vanilla:divergence=forward-kl,beta=0.5"], 1, ["forward-kl", "beta"]),
    ([*COLOCATED, "--loss", "minilm:relation_heads=7"], 1, ["7 relation heads do not divide the width 64"]),
    ([*COLOCATED, "--loss", "minilm:relation_heads=many"], 1, ["relation_heads", "many"]),
    ([*COLOCATED, "--loss", "minilm:relation_heads=2.0"], 1, ["relation_heads=2.0 must be a whole number"]),
    ([*COLOCATED, "--loss", "minilm:relation_heads=-2"], 1, ["relation_heads=-2 must be at least 0"]),
    ([*COLOCATED, "--loss", "vanilla:temperature=1e999"], 1, ["temperature=inf must be a number"]),
    ([*COLOCATED, "--loss", "minilm:layer=6"], 1, ["the student has 6 layers", "layer 6"]),
    ([*COLOCATED, "--loss", "vanilla", "vanilla"], 1, ["--loss names vanilla twice"]),
    ([*COLOCATED, "--loss", "attention-scores", "attention-outputs"], 1, ["measure attention", "one of them"]),
    (
        [*COLOCATED, "--loss", "vanilla:weight=0", "--lm-weight", "0"],
        1,
        ["--lm-weight and every weight of --loss are 0"],
    ),
    ([*COLOCATED, *VANILLA, "--scale-momentum", "1"], 1, ["--scale-momentum 1 must be at least 0 and below 1"]),
    (
        [*SEPARATE, "--loss", "minilm:relation_heads=1", "--tensor-model-parallel-size", "2"],
        3,
        ["1 relation heads", "--tensor-model-parallel-size 2"],
    ),
]


@pytest.mark.parametrize(("flags", "ranks", "says"), UNTAUGHT, ids=[" ".join(w[0]) for w in UNTAUGHT])
def test_a_teacher_that_cannot_be(
    flags: list[str], ranks: int, says: list[str], base_run: Path, corpus: Path, tmp_path: Path
) -> None:
    common = [*SMALL, "--data-path", str(corpus), "--train-iters", "4", "--save", str(tmp_path / "run")]
    refused([*common, "--load", str(base_run), *flags], ranks, says)


def refused(flags: list[str], ranks: int, says: list[str]) -> None:
    """Before any process group there is one sentence that holds `says`."""
    from megatron_distill.training.teaching import build_terms

    with pytest.raises(ConfigError) as caught:
        build_terms(make_plan(parse(RunConfig, flags), world_size=ranks))
    sentence = str(caught.value)
    assert "\n" not in sentence
    for part in says:
        assert part in sentence


@pytest.mark.parametrize(
    ("model", "loss", "says"),
    [
        (["--vocab-size", "70"], "vanilla", ["the teacher knows 60 tokens and the student 70", "--tokenizer"]),
        (["--hidden-size", "128"], "hidden-states", ["needs a teacher as wide", "64", "128"]),
        (["--hidden-size", "128"], "attention-outputs", ["attention of the same width", "64", "128"]),
        (["--vocab-size", "70"], "embedding-table", ["the teacher knows 60 tokens and the student 70", "--tokenizer"]),
        (["--hidden-size", "128"], "embedding-table", ["tables of the same width", "64", "128"]),
        (["--num-attention-heads", "8"], "attention-scores", ["as many attention heads", "has 4", "student 8"]),
        (["--num-attention-heads", "3", "--hidden-size", "96"], "minilm", ["3 relation heads", "width 64", "teacher"]),
    ],
)
def test_a_teacher_of_another_size(
    model: list[str], loss: str, says: list[str], base_run: Path, corpus: Path, tmp_path: Path
) -> None:
    common = [*MODEL, *SMALL, "--data-path", str(corpus), "--train-iters", "4", "--save", str(tmp_path / "run"), *model]
    refused([*common, *COLOCATED, "--teacher-load", str(base_run), "--loss", loss], 1, says)


def test_a_teacher_without_the_layer_that_is_compared(base_run: Path, corpus: Path, tmp_path: Path) -> None:
    common = [*SMALL, "--data-path", corpus, "--load", base_run, "--save", tmp_path / "run", "--train-iters", "2"]
    start(*common, "--pruning-layout", "2,3")
    own = [*map(str, common[:-1]), "4", "--save", str(tmp_path / "next"), "--teacher-load", str(tmp_path / "run")]
    refused([*own, *SEPARATE, "--loss", "hidden-states"], 2, ["the teacher has no layer 2"])


def test_the_program_refuses_a_loss_on_every_rank_before_they_meet(
    base_run: Path, corpus: Path, tmp_path: Path
) -> None:
    common = [*SMALL, "--data-path", corpus, "--load", base_run, "--save", tmp_path / "run", "--train-iters", "2"]
    codes, said = forked(*common, *SEPARATE, "--loss", "vanila", ranks=2)
    assert codes == [2, 2]
    assert (
        said == "pretrain_distill.py: no loss is called vanila, or none that has a known cost; did you mean vanilla?\n"
    )


def test_another_teacher_or_method_does_not_go_on(base_run: Path, corpus: Path, tmp_path: Path) -> None:
    common = [*SMALL, "--data-path", str(corpus), "--save", str(tmp_path / "run"), "--load", str(base_run)]
    own = [*common, "--train-iters", "8"]
    start(*own, *COLOCATED, "--loss", "vanilla:weight=2", "--exit-interval", "2")
    refused(own, 1, ["--loss vanilla:weight=2", "not no teacher"])
    refused(
        [*own, *COLOCATED, "--loss", "vanilla"],
        1,
        ["was trained with --loss vanilla:weight=2", "not --loss vanilla:weight=1.0 "],
    )
    lighter = [*own, *COLOCATED, "--loss", "vanilla:weight=2"]
    refused([*lighter, "--lm-weight", "0"], 1, ["--lm-weight 1", "--lm-weight 0"])
    refused([*lighter, "--no-normalise-losses"], 1, ["--no-normalise-losses"])
    start(*common, "--train-iters", 1, "--save", tmp_path / "another")
    refused(
        [*lighter, "--teacher-load", str(tmp_path / "another")],
        1,
        ["was trained with a teacher of other weights than "],
    )
