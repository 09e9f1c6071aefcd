"""Whether a folder says that its model makes embeddings, and how."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench.models import EmbeddingRecipe, Pooling
from workbench.models.embedding_recipe import read_embedding_recipe
from workbench.models.hub_client import choose_files

TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
NORMALIZE = {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
DENSE = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
LAST = {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}
MEAN = {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": False}


def write(folder: Path, modules: object, pooling: object) -> Path:
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


@pytest.mark.parametrize(
    ("modules", "pooling", "recipe"),
    [
        ([TRANSFORMER, POOLING, NORMALIZE], LAST, EmbeddingRecipe(Pooling.LAST, True)),
        ([TRANSFORMER, POOLING], MEAN, EmbeddingRecipe(Pooling.MEAN, False)),
        ([TRANSFORMER, POOLING], {"pooling_mode": "lasttoken"}, EmbeddingRecipe(Pooling.LAST, False)),
        ([TRANSFORMER, POOLING], {"pooling_mode": "mean"}, EmbeddingRecipe(Pooling.MEAN, False)),
    ],
)
def test_the_recipe_is_the_authors(tmp_path, modules, pooling, recipe):
    assert read_embedding_recipe(write(tmp_path / "m", modules, pooling)) == recipe


@pytest.mark.parametrize(
    ("modules", "pooling"),
    [
        ([TRANSFORMER, POOLING, DENSE], LAST),
        ([TRANSFORMER], LAST),
        ([TRANSFORMER, {**POOLING, "path": "../1_Pooling"}], LAST),
        ([TRANSFORMER, POOLING], {**LAST, **{"pooling_mode_mean_tokens": True}}),
        ([TRANSFORMER, POOLING], {"pooling_mode_cls_token": True}),
        ([TRANSFORMER, POOLING], {"pooling_mode": "cls"}),
        ([TRANSFORMER, POOLING], []),
        ({}, LAST),
        ([1, 2], LAST),
    ],
)
def test_what_is_not_known_is_no_recipe(tmp_path, modules, pooling):
    assert read_embedding_recipe(write(tmp_path / "m", modules, pooling)) is None


def test_a_plain_model_has_none(tmp_path):
    assert read_embedding_recipe(tmp_path) is None


def test_the_recipe_is_fetched_with_a_hubs_model():
    names = ["config.json", "model.safetensors", "modules.json", "1_Pooling/config.json", "onnx/config.json"]
    assert "1_Pooling/config.json" in choose_files(names, False, False)
    assert "onnx/config.json" not in choose_files(names, False, False)
