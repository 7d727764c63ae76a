"""Post-training quantization: of a plain weight (`rtn`, `gptq`, `awq`), and of every weight of a trained model at once
(`scaling.ptq.apply`). `python -m scaling.ptq` adds quantizations to finished runs."""

from scaling.ptq.awq import awq
from scaling.ptq.gptq import gptq
from scaling.ptq.rtn import rtn

__all__ = ["awq", "gptq", "rtn"]
