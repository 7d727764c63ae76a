"""Losses on the fixed held-out windows, and their standard errors clustered by document."""

import numpy as np
import torch

from scaling.config.model import ModelConfig
from scaling.data.corpus import Windows
from scaling.model.quantizers import StackPrecision
from scaling.model.transformer import Weights, losses
from scaling.quantization.autocast import autocast


@torch.no_grad()
def evaluate(
    weights: Weights, windows: Windows, config: ModelConfig, precision: StackPrecision, batch: int, dtype: torch.dtype
) -> np.ndarray:
    """Mean loss of every window for every model, (M, n) float32, in nats a token.

    Windows are taken `batch` at a time, as many as one forward pass of training: activations with one scale a tensor
    see as many tokens as there, and training precision holds here too.
    """
    first = next(iter(weights.values()))
    m, device = first.shape[0], first.device
    tokens = torch.from_numpy(windows.tokens).to(device)
    chunks = []
    for start in range(0, len(tokens), batch):
        chunk = tokens[start : start + batch].expand(m, -1, -1)
        with autocast(device, dtype):
            chunks.append(losses(weights, chunk[..., :-1], chunk[..., 1:], config, precision))
    return torch.cat(chunks, dim=1).float().cpu().numpy()
