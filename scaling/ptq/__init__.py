"""Post-training quantization: of a plain weight (`rtn`, `gptq`, `awq`), and of every weight of a trained model at once.

`settings` lists what a config asks for, `apply` calls the method of each (a new one is a module, listed there and in
`scaling.config.ptq`), `evaluate` computes losses, `measure` makes records of them. `python -m scaling.ptq` adds
quantizations to finished runs (`requantize`).
"""
