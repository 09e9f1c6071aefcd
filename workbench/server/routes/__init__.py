"""The routes: each parses, submits and answers, and does nothing else."""

from __future__ import annotations

from fastapi import APIRouter

from workbench.server.routes import (
    chat,
    completions,
    embeddings,
    health,
    models,
    monitor,
    multi_gpu,
    plugins,
    quantization,
    responses,
    stream,
    tokens,
)

__all__ = ["ROUTERS"]

ROUTERS: tuple[APIRouter, ...] = (
    chat.router,
    completions.router,
    responses.router,
    embeddings.router,
    tokens.router,
    models.router,
    multi_gpu.router,
    quantization.router,
    monitor.router,
    plugins.router,
    stream.router,
    health.router,
)
