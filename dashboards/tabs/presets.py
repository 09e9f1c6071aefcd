"""Presets above the sampling controls: choose, save, delete, import, export."""

from __future__ import annotations

from typing import Any

import gradio as gr

from dashboards.chat_settings import ChatSettings
from dashboards.parts import shown_error
from dashboards.tabs.download import offer_download
from workbench.conversation import Preset, PresetShelf, export_presets, import_presets
from workbench.errors import ConfigError, WorkbenchError

__all__ = ["PresetBar"]

_FILE_NAME = "presets.json"
_INFO = "sets everything below"
_OPTIONS: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
_LATEST: dict[str, Any] = {**_OPTIONS, "trigger_mode": "always_last"}


class PresetBar:
    """A dropdown of presets and its buttons; `wire` connects it with the controls that a preset sets."""

    def __init__(self, shelf: PresetShelf) -> None:
        self._shelf = shelf
        self.choice = gr.Dropdown(self._names, value="Precise", label="Preset", elem_id="wb-preset", info=_INFO)
        with gr.Accordion("Save, import and export presets", open=False, elem_id="wb-preset-files"):
            self.name = gr.Textbox(label="Name of the preset", max_length=60, elem_id="wb-preset-name")
            with gr.Row():
                self.save = gr.Button("Save", size="sm", min_width=70)
                self.remove = gr.Button("Delete", size="sm", min_width=70)
                self.export = gr.Button("Export", size="sm", min_width=70)
                self.imported = gr.UploadButton(
                    "Import", size="sm", type="binary", file_types=[".json"], min_width=70, elem_id="wb-preset-import"
                )

    def wire(self, controls: dict[str, Any]) -> None:
        """Let choosing a preset set the controls, and saving read them."""
        set_by_preset = [name for name in ChatSettings.of_preset(self._shelf.list()[0]) if name in controls]
        outputs = [controls[name] for name in set_by_preset]
        options = _OPTIONS

        def apply(name: str, system: str) -> list[Any]:
            try:
                system_after = self._shelf.system_after(name, system)
                values = {**ChatSettings.of_preset(self._shelf.get(name)), "system": system_after or ""}
            except WorkbenchError as error:
                raise shown_error(error) from None
            return [values[field] for field in set_by_preset]

        inputs = [self.choice, controls["system"]]
        self.choice.input(apply, inputs, outputs, trigger_mode="always_last", **options)
        # Typed by hand or set by a preset: the marks follow the values.
        changes = [control.change for control in outputs]
        gr.on([self.choice.change, *changes], self._marked, [self.choice, *controls.values()], [self.choice], **_LATEST)
        values = [self.name, *controls.values()]
        self.save.click(self._save, values, [self.choice], **options)
        self.remove.click(self._remove, [self.choice], [self.choice], **options)
        self.imported.upload(self._import, [self.imported], [self.choice], **options)
        offer_download(self.export, self._export)

    def show_on(self, demo: gr.Blocks) -> None:
        """Offer what is saved by now when the page opens."""
        demo.load(lambda: gr.Dropdown(choices=self._names), None, [self.choice], **_OPTIONS)

    @property
    def _names(self) -> list[str]:
        try:
            return [preset.name for preset in self._shelf.list()]
        except ConfigError as error:
            # A damaged file must not keep the app from opening; saving says what is wrong.
            gr.Warning(str(error))
            return ["Precise"]

    def _marked(self, name: str | None, *values: Any) -> Any:
        """The dropdown with what is no longer as the preset has it."""
        try:
            changed = [] if name is None else ChatSettings.of(*values).changes_of(self._shelf.get(name))
        except WorkbenchError:
            # What is wrong is said where it is used.
            return gr.skip()
        words = ", ".join(field.replace("_", " ") for field in changed)
        return gr.Dropdown(info=f"changed since: {words}" if changed else _INFO)

    def _save(self, name: str, *values: Any) -> Any:
        settings = ChatSettings.of(*values)
        try:
            preset = Preset.of(name, settings.params(), settings.system or None)
            self._shelf.save(preset)
        except WorkbenchError as error:
            raise shown_error(error) from None
        return gr.Dropdown(choices=self._names, value=preset.name)

    def _remove(self, name: str) -> Any:
        try:
            self._shelf.remove(name)
        except WorkbenchError as error:
            raise shown_error(error) from None
        # The controls stay as they are, which is as no preset that is left.
        return gr.Dropdown(choices=self._names, value=None)

    def _import(self, content: bytes) -> Any:
        try:
            presets = import_presets(content.decode("utf-8-sig", "replace"))
            own = [preset for preset in presets if not self._shelf.is_built_in(preset.name)]
            if not own:
                raise ConfigError("there is no preset in that file beside those that are always here")
            self._shelf.save(*own)
        except WorkbenchError as error:
            raise shown_error(error) from None
        gr.Info(f"Taken in: {', '.join(preset.name for preset in own)}.")
        return gr.Dropdown(choices=self._names)

    def _export(self) -> tuple[str, str]:
        own = [preset for preset in self._shelf.list() if not self._shelf.is_built_in(preset.name)]
        if not own:
            raise shown_error(ConfigError("no preset is saved here yet: save one, then export it"))
        return export_presets(own), _FILE_NAME
