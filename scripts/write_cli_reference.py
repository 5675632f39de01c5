"""Write the reference pages of the command line from the commands themselves.

`write_cli_reference.py` writes `docs/reference/cli.md` and `docs/reference/job-file.md`; a test compares both with the
commands and the keys.
"""

from collections.abc import Iterator
from pathlib import Path

import click

from pumasi.cli.main import COMMANDS, SECTIONS, cli
from pumasi.cli.submission.job_file import KEYS, NOTICE_KEYS, TOPOLOGY_KEYS, Key
from pumasi.cli.submission.options import SUPPORTED, UNSUPPORTED, Option, Takes

REFERENCE = Path(__file__).resolve().parents[1] / "docs/reference"
CLI_PAGE = REFERENCE / "cli.md"
JOB_FILE_PAGE = REFERENCE / "job-file.md"

CLI_HEAD = """# Command line

<!-- Written by scripts/write_cli_reference.py from the commands. Change the command, then run the script. -->

`pumasi` speaks to the control plane over HTTP. It finds the server in `--server`, else in `$PUMASI_SERVER`, else in
what `pumasi login` stored; the token in `$PUMASI_TOKEN`, else in what `pumasi login` stored for that server. What is
stored is in `$XDG_CONFIG_HOME/pumasi` (by default `~/.config/pumasi`): `config.toml`, and `credentials`, which only
you may read.

Commands that list take `-o table|wide|json|csv`, `--columns`, `--sort-by` and `--no-headers`. On a terminal a table is
drawn; in a pipe it is plain columns, nothing cut off. `NO_COLOR` and `COLUMNS` are honoured. Only results go to
standard output; JSON is one document. How commands end is in [exit codes](exit-codes.md); coming from Slurm, see
[the guide](../guides/from-slurm.md).
"""

JOB_FILE_HEAD = """# Job file

<!-- Written by scripts/write_cli_reference.py from the keys. Change the key, then run the script. -->

`pumasi submit` takes a job as YAML 1.2 if the file is named `.yaml` or `.yml`:

```yaml
name: pretrain
queue: public/academia
nodes: 16
gpus_per_node: 4
gpu_models: [gb300]
time_limit: 1-12:00:00
topology: {level: block, required: true}
segment_nodes: 8
notice: {signal: USR1, seconds: 300}
checkpoint: 30m
environment:
  EPOCHS: "3"
script: |
  #!/bin/bash
  torchrun --nnodes "$SLURM_NNODES" train.py
```

Every mistake is told at once, with its line: unknown keys (with what was probably meant), keys given twice, values of
another kind. Anchors, aliases and nesting beyond what a job has are refused. Options on the command line win over the
file.

A type in `gpu_models`, such as `b200`, stands for every model that has it as a part of its name. `16` nodes of `4` GPUs
may also be written as `gpus: 64`; each pool then takes the fewest nodes it can. With `slice: 1g.23gb` its GPUs are MIG
slices of that kind, from a pool that is cut into such: `{slice: 1g.23gb, gpus: 2}` asks for two of them.
`{slice: shard, gpus: 2}` asks for two shards of one GPU, in a pool whose GPUs are shared by count. What the job
finds around it is in [job environment](job-environment.md).
"""


def cli_page() -> str:
    """The page on all commands."""
    return "\n".join([CLI_HEAD, *_sections(), *_submit_tables()])


def job_file_page() -> str:
    """The page on YAML jobs."""
    tables = ["## Keys\n", *_key_table(KEYS), "\n## Below `notice`\n", *_key_table(NOTICE_KEYS)]
    return "\n".join([JOB_FILE_HEAD, *tables, "\n## Below `topology`\n", *_key_table(TOPOLOGY_KEYS), ""])


def _sections() -> Iterator[str]:
    context = click.Context(cli, info_name="pumasi")
    for section in SECTIONS:
        yield f"## {section}\n"
        for name, entry in COMMANDS.items():
            command = cli.get_command(context, name)
            if entry.section == section and command is not None:
                yield from _command(command, f"pumasi {name}", context)


def _command(command: click.Command, path: str, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=path.rpartition(" ")[2], parent=parent)
    yield f"### {path}\n"
    yield f"`{' '.join([path, *command.collect_usage_pieces(context)])}`\n"
    yield f"{_paragraphs(command.help or '')}\n"
    options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    if options:
        yield "| option | meaning |"
        yield "| --- | --- |"
        yield from (_option_row(option) for option in options)
        yield ""
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from _command(below, f"{path} {name}", context)


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.replace("\b", "").split("\n\n"))


def _option_row(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    takes = "" if option.is_flag else f" `{_metavar(option)}`"
    default = f" Default: {option.default}." if option.show_default and option.default not in {None, ""} else ""
    return _row(f"{names}{takes}", f"{option.help or ''}{default}")


def _metavar(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return "|".join(str(choice) for choice in option.type.choices)
    return option.type.name.upper()


def _submit_tables() -> Iterator[str]:
    yield "## Directives of batch scripts\n"
    yield "What `#SBATCH` lines may hold; what each means is under [submit](#pumasi-submit). Options of our own go on"
    yield "`#PUMASI` lines, which Slurm takes for comments; the variables are those sbatch reads.\n"
    yield "| option | on | variable |"
    yield "| --- | --- | --- |"
    for option in SUPPORTED:
        marker = "`#PUMASI`" if option.ours else "`#SBATCH`, `#PUMASI`"
        yield _row(_names(option), marker, f"`${option.variable}`" if option.variable else "")
    yield "\n### Not supported\n"
    yield "Each of these is an error that says why; `--ignore=NAMES` submits without them.\n"
    yield "| option | why |"
    yield "| --- | --- |"
    yield from (_row(_names(option), option.why_not) for option in UNSUPPORTED)
    yield ""


def _names(option: Option) -> str:
    value = f"={option.metavar or '...'}" if option.takes is not Takes.NOTHING else ""
    short = f", `-{option.short}`" if option.short else ""
    return f"`--{option.name}{value}`{short}"


def _key_table(keys: dict[str, Key]) -> Iterator[str]:
    yield "| key | meaning |"
    yield "| --- | --- |"
    yield from (_row(f"`{name}`", key.help) for name, key in keys.items())


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> None:
    """Write both pages."""
    CLI_PAGE.write_text(cli_page(), encoding="utf-8")
    JOB_FILE_PAGE.write_text(job_file_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
