"""Names to files, files to a loaded model. Importing this loads neither torch nor transformers."""

from workbench.models.catalogue import Catalogue, CatalogueEntry
from workbench.models.embedding_recipe import EmbeddingRecipe, Pooling
from workbench.models.files import ModelFiles
from workbench.models.loaded_model import LoadedModel
from workbench.models.loader import load_model
from workbench.models.source import ModelSource, parse_source
from workbench.models.spec import ModelSpec
from workbench.models.tokenizer import Tokenizer

__all__ = [
    "Catalogue",
    "CatalogueEntry",
    "EmbeddingRecipe",
    "LoadedModel",
    "ModelFiles",
    "ModelSource",
    "ModelSpec",
    "Pooling",
    "Tokenizer",
    "load_model",
    "parse_source",
]
