"""Text in, batches and validation windows out: corpora, tokenizers, token shards, and what a run reads from them."""
