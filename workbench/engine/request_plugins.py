"""Plugins around a request: is what it asks for there, what do they change in it, who hears of its end. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from workbench.engine.answer_filters import AnswerFilters
from workbench.engine.messages import Chunk, Request
from workbench.errors import RequestError
from workbench.plugins import Contribution, FinishedRequest, PluginManager, PluginRefusal, RequestInfo

if TYPE_CHECKING:
    from workbench.engine.sampling_params import SamplingParams

__all__ = ["FinishWatch", "RequestPlugins"]

# What the doors have counted with by the time that a plugin may speak.
_NOT_FOR_PLUGINS = frozenset({"n", "cache_salt"})


class RequestPlugins:
    """What the engine's client asks of plugins. Costs next to nothing where there are none."""

    def __init__(self, manager: PluginManager) -> None:
        self.manager = manager

    def check(self, params: SamplingParams) -> None:
        """Raise RequestError for a plugin that is not there, and for options that it does not take."""
        for name, options in params.plugins.items():
            found = self._find(name)
            if found.point == "stream_filters" and (params.logprobs or params.prompt_logprobs is not None):
                raise RequestError(
                    f"plugins: {name} changes the text, so log-probabilities cannot be told beside it: leave one out"
                )
            self.manager.attempt(found.plugin, f"{found.point} {name}", partial(_try_options, found, options), None)

    @property
    def has_pre_request(self) -> bool:
        """Whether any plugin wants to see requests before they run."""
        return bool(self.manager.pre_request_hooks)

    def prepared(
        self,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        check: Callable[[Sequence[int], SamplingParams], None],
    ) -> SamplingParams:
        """The settings with what plugins change before the request, one after the other.

        A change that cannot be served counts as the plugin's failure and is left out. Raises PluginRefusal where a
        plugin refuses the request.
        """
        for plugin, hook in self.manager.pre_request_hooks:
            info = RequestInfo(tuple(prompt_token_ids), _sampling(params))
            change = partial(_changed, hook, info, params, prompt_token_ids, check)
            params = self.manager.attempt(plugin, "pre_request", change, params)
        return params

    def filters(self, params: SamplingParams) -> list[AnswerFilters] | None:
        """Stream filters for each of the request's answers; None where it names none."""
        if not params.plugins:
            return None
        made = (AnswerFilters.of(self.manager, params.plugins) for _ in range(params.n))
        filters = [each for each in made if each is not None]
        # All or none: what is asked for is the same for each.
        return filters or None

    def watch(self, request: Request) -> FinishWatch | None:
        """Collects a request's answers for the plugins that want to hear of them; None where none does."""
        return FinishWatch(self.manager, request) if self.manager.post_request_hooks else None

    def _find(self, name: str) -> Contribution:
        here = {**self.manager.at("samplers"), **self.manager.at("stream_filters")}
        if name in here:
            return here[name]
        problem = self.manager.problem(name)
        why = f"is not in use ({problem})" if problem else "is not active here"
        raise RequestError(f"plugins: {name!r} {why}; active are: {', '.join(sorted(here)) or 'none'}")


@dataclass
class FinishWatch:
    """One request's answers as they come, told on when each has ended. Used by the engine's thread."""

    manager: PluginManager
    request: Request
    _texts: dict[int, list[str]] = field(default_factory=dict)
    _ids: dict[int, list[int]] = field(default_factory=dict)

    def take(self, chunk: Chunk) -> None:
        """Note a chunk."""
        texts, ids = self._texts.setdefault(chunk.index, []), self._ids.setdefault(chunk.index, [])
        texts.append(chunk.text)
        ids.extend(chunk.token_ids)
        if chunk.finish_reason is not None:
            self.manager.after_request(self._finished(chunk, "".join(texts), tuple(ids)))

    def _finished(self, last: Chunk, text: str, token_ids: tuple[int, ...]) -> FinishedRequest:
        usage = last.usage
        first_token_s = None if usage is None else usage.first_token_s
        assert last.finish_reason is not None
        return FinishedRequest(
            request_id=last.request_id,
            index=last.index,
            prompt_token_ids=self.request.prompt_token_ids,
            sampling=_sampling(self.request.params),
            text=text,
            token_ids=token_ids,
            finish_reason=last.finish_reason.value,
            num_cached_tokens=usage.num_cached_tokens if usage else 0,
            ttft_s=None if usage is None or first_token_s is None else first_token_s - usage.submitted_s,
            total_s=usage.finished_s - usage.submitted_s if usage else None,
            error=str(last.error) if last.error else None,
        )


def _changed(
    hook: Callable[[RequestInfo], Mapping[str, Any] | None],
    info: RequestInfo,
    params: SamplingParams,
    prompt_token_ids: Sequence[int],
    check: Callable[[Sequence[int], SamplingParams], None],
) -> SamplingParams:
    changes = hook(info)
    if not changes:
        return params
    forbidden = sorted(_NOT_FOR_PLUGINS & set(changes))
    if forbidden:
        raise ValueError(f"pre_request must not change {forbidden[0]!r}")
    wanted = replace(params, **changes)
    check(prompt_token_ids, wanted)
    return wanted


def _try_options(found: Contribution, options: Mapping[str, object]) -> None:
    """Make one and drop it, so that wrong options are refused where the request is made."""
    try:
        found.value(dict(options))
    except ValueError as error:
        # The one error of a plugin that is the caller's own.
        raise PluginRefusal(f"plugins: {found.name}: {error}") from None


def _sampling(params: SamplingParams) -> dict[str, Any]:
    return {each.name: getattr(params, each.name) for each in fields(params)}
