"""The top of the command tree: which commands there are, the options of all of them, and what an error looks like."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated, Any

import typer

from workbench import __version__
from workbench.cli.lazy_group import Entry, LazyGroup
from workbench.cli.plugin_commands import plugin_entries
from workbench.errors import OutOfMemoryError, WorkbenchError

__all__ = ["root_command"]

_MODEL_COMMANDS = {
    "list": Entry("workbench.cli.models.list", "Show the models that are here and those that can be fetched."),
    "fetch": Entry("workbench.cli.models.fetch", "Download a model and make it ready to load."),
    "remove": Entry("workbench.cli.models.remove", "Delete a model from the cache."),
    "path": Entry("workbench.cli.models.path", "Print the folder that transformers can load."),
}


class _ModelsGroup(LazyGroup):
    entries = _MODEL_COMMANDS


class _KeysGroup(LazyGroup):
    entries = {
        "create": Entry("workbench.cli.keys.create", "Make a key and print it once."),
        "list": Entry("workbench.cli.keys.list", "Show the keys, without their secrets."),
        "revoke": Entry("workbench.cli.keys.revoke", "Take a key away."),
    }


class _PluginsGroup(LazyGroup):
    entries = {
        "ls": Entry("workbench.cli.plugins.list", "Show the plugins that are here, or those in an index."),
        "install": Entry("workbench.cli.plugins.install", "Get a plugin from an index, checked and switched off."),
        "update": Entry("workbench.cli.plugins.update", "Get newer versions from an index."),
        "remove": Entry("workbench.cli.plugins.remove", "Delete an installed plugin."),
        "rollback": Entry("workbench.cli.plugins.rollback", "Go back to the version before."),
        "enable": Entry("workbench.cli.plugins.enable", "Switch a plugin on."),
        "disable": Entry("workbench.cli.plugins.disable", "Switch a plugin off."),
        "info": Entry("workbench.cli.plugins.info", "Show everything about one plugin."),
        "new": Entry("workbench.cli.plugins.new", "Write the package of a new plugin."),
        "index": Entry("workbench.cli.plugins.index", "Make a signed index of a folder of wheels."),
        "trust": Entry("workbench.cli.plugins.trust", "Say whose signatures count."),
    }


class _AwsGroup(LazyGroup):
    entries = {
        "advise": Entry("workbench.cli.aws.advise", "Show which EC2 instances would serve a model, and at what cost."),
        "userdata": Entry("workbench.cli.aws.userdata", "Print a cloud-init script for a serving instance."),
        "instance": Entry("workbench.cli.aws.instance", "Show what this instance is, or what suits a type."),
        "policy": Entry("workbench.cli.aws.policy", "Print the least IAM policy for what is asked."),
    }


class _CacheGroup(LazyGroup):
    entries = {
        "ls": Entry("workbench.cli.cache.ls", "Show the quantised models that are kept."),
        "rm": Entry("workbench.cli.cache.rm", "Remove one."),
        "clear": Entry("workbench.cli.cache.clear", "Remove all."),
    }


class _ExampleGroup(LazyGroup):
    entries = {
        "inference": Entry("workbench.cli.example.inference", "Ask one model in every way there is."),
        "named_entity_recognition": Entry(
            "workbench.cli.example.named_entity_recognition", "Find names, places, dates and the like in a text."
        ),
        "document_classification": Entry(
            "workbench.cli.example.document_classification", "Say which kind of document a text is."
        ),
        "language_detection": Entry(
            "workbench.cli.example.language_detection", "Say in which language a text is written."
        ),
        "question_answering": Entry("workbench.cli.example.question_answering", "Answer questions about a text."),
        "text_generation": Entry("workbench.cli.example.text_generation", "Write a text in a style and of a length."),
        "code_generation": Entry("workbench.cli.example.code_generation", "Write code for a task."),
        "conversation_simulation": Entry(
            "workbench.cli.example.conversation_simulation", "Let a model talk with itself."
        ),
        "data_analysis": Entry("workbench.cli.example.data_analysis", "Have a model write about a table."),
    }


class _RootGroup(LazyGroup):
    entries = {
        "info": Entry("workbench.cli.info", "Show the machine, its backends and the installed versions."),
        "gpus": Entry("workbench.cli.gpus", "Show the GPUs, who is on them, and how they are linked."),
        "models": Entry(_ModelsGroup, "List, fetch and remove models."),
        "plan": Entry("workbench.cli.plan", "Show what a model would take, and how fast it would be."),
        "generate": Entry("workbench.cli.generate", "Complete a prompt."),
        "chat": Entry("workbench.cli.chat", "Talk to a model."),
        "app": Entry("workbench.cli.app", "Open the web app, on a model or on a running endpoint."),
        "serve": Entry("workbench.cli.serve", "Serve a model to OpenAI clients."),
        "profile": Entry("workbench.cli.profile", "Show where the time of a model's steps goes."),
        "bench": Entry("workbench.cli.bench", "Measure a model beside other engines, or an endpoint under load."),
        "monitor": Entry("workbench.cli.monitor", "Watch processor, memory and GPUs of this machine."),
        "quantize": Entry("workbench.cli.quantize", "Make a model's weights smaller, or compare the ways to."),
        "cache": Entry(_CacheGroup, "Show and remove quantised models."),
        "example": Entry(_ExampleGroup, "Nine things to do with a model."),
        "keys": Entry(_KeysGroup, "Make, show and revoke the endpoint's keys."),
        "plugins": Entry(_PluginsGroup, "Find, install, switch and write plugins."),
        "aws": Entry(_AwsGroup, "Advice and scripts for EC2."),
        "completion": Entry("workbench.cli.completion", "Print a shell's completion script."),
    }

    def further_entries(self) -> dict[str, Entry]:
        """What plugins add. Only asked where a name is not one of ours, or all are to be listed."""
        return plugin_entries()

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except WorkbenchError as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            _print_error(error)
            raise typer.Exit(1) from None


def root_command() -> Any:
    """The whole command tree; commands themselves are imported when they are called."""
    app = typer.Typer(cls=_RootGroup, add_completion=False, no_args_is_help=True, rich_markup_mode=None)
    app.callback()(_root)
    return typer.main.get_command(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """An LLM workbench: one batched inference engine, here at the command line."""


def _print_error(error: WorkbenchError) -> None:
    print(f"error: {error}", file=sys.stderr)
    if isinstance(error, OutOfMemoryError) and error.would_fit:
        print(f"what would fit: {'; '.join(error.would_fit)}", file=sys.stderr)
