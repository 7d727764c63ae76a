"""Post-training quantization: of a plain weight (`rtn`), and of every weight of a trained model at once
(`quantized`)."""

from scaling.ptq.apply import Setting, quantized, settings_of
from scaling.ptq.rtn import rtn

__all__ = ["Setting", "quantized", "rtn", "settings_of"]
