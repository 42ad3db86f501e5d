"""The commands of ``spikeline hub``; what they do stands in ``flows.hub_commands``."""

from typing import Annotated

import typer

from flows.help_text import SpikelineGroup
from flows.options import JsonOption

hub_app = typer.Typer(
    cls=SpikelineGroup, help="Give a model away, or take one.", no_args_is_help=True
)

RepositoryArgument = Annotated[
    str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hugging Face hub.")
]


@hub_app.command("push", epilog="Example: spikeline hub push folder owner/name")
def hub_push(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Written by export --format folder.")
    ],
    repository: RepositoryArgument,
    private: Annotated[
        bool, typer.Option("--private", help="A new repository is private.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Upload a folder of export, with the token of HF_TOKEN or of hf auth login."""
    from flows.hub_commands import run_push

    run_push(folder, repository, private, as_json)


@hub_app.command("pull", epilog="Example: spikeline hub pull owner/name --out folder")
def hub_pull(
    repository: RepositoryArgument,
    out: Annotated[str, typer.Option("--out", help="New folder to write.")],
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch, tag or commit; the newest.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Download a model that was pushed; transcribe, serve and load() take the folder."""
    from flows.hub_commands import run_pull

    run_pull(repository, out, revision, as_json)
