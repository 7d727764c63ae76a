"""Post-training quantization: of a plain weight (`rtn`, `gptq`, `awq`), and of every weight of a trained model at once
(`scaling.ptq.apply`). `python -m scaling.ptq` adds quantizations to finished runs."""
