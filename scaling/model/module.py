"""One trained model as a plain `torch.nn.Module`, for notebooks and for programs of others.

It computes what training and evaluation compute, as a stack of one, quantizers included. Shape suffixes as in
`scaling.model.transformer`.
"""

from collections.abc import Mapping

import torch
from torch import nn

from scaling.config.model import ModelConfig
from scaling.config.precision import Precision
from scaling.model.quantizers import StackPrecision
from scaling.model.transformer import EAGER, head_logits, hidden, losses
from scaling.quantization.autocast import autocast


class Transformer(nn.Module):
    """A model with the weights (out, in) by their names in a checkpoint, which are those of its `state_dict`.

    `precision` is that of training, and is always on. `sequences` is how many a forward pass of `losses` takes at once:
    where a scale is that of a whole tensor of activations, they share it. `dtype` is that of the matmuls.
    """

    def __init__(
        self,
        weights: Mapping[str, torch.Tensor],
        config: ModelConfig,
        precision: Precision,
        *,
        sequences: int = 32,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.config, self.precision, self.sequences, self.dtype = config, precision, sequences, dtype
        for name, weight in weights.items():
            *folders, last = name.split(".")
            place: nn.Module = self
            for folder in folders:
                if folder not in dict(place.named_children()):
                    place.add_module(folder, nn.Module())
                place = place.get_submodule(folder)
            place.register_parameter(last, nn.Parameter(weight.clone()))

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, V) of the token behind each of `tokens` (B, T), in float32."""
        weights, precision = self._stack()
        with autocast(tokens_BT.device, self.dtype):
            h_MSd = hidden(weights, tokens_BT[None], self.config, precision, EAGER)
            logits = head_logits(precision.head(weights.get("head", weights["embedding"])), h_MSd)
        return logits.view(*tokens_BT.shape, -1)

    def losses(self, tokens: torch.Tensor) -> torch.Tensor:
        """Mean loss (n,) of each window (n, T+1), in nats a token: with the windows of a run, what its record has."""
        weights, precision = self._stack()
        parts = []
        for chunk in tokens[None].split(self.sequences, dim=1):
            with autocast(tokens.device, self.dtype):
                parts.append(losses(weights, chunk[..., :-1], chunk[..., 1:], self.config, precision)[0])
        return torch.cat(parts).float()

    def _stack(self) -> tuple[dict[str, torch.Tensor], StackPrecision]:
        weights = {name: weight[None] for name, weight in self.named_parameters()}
        return weights, StackPrecision.of([self.precision], weights["embedding"].device)
