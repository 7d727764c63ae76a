"""Text in, batches and validation windows out: corpora, tokenizers, token shards, and what a run reads from them."""

from scaling.data.batches import Ahead, Batches
from scaling.data.config import DataConfig
from scaling.data.corpus import Corpus, Windows
from scaling.data.shards import prepare

__all__ = ["Ahead", "Batches", "Corpus", "DataConfig", "Windows", "prepare"]
