"""Runs precision-scaling experiments: config -> tokens -> stack of models -> training -> PTQ -> records.

From the bottom up; each imports only itself and what stands before it:

    errors         bad input, as one line
    quantization/  number formats, and tensors rounded to them
    config/        what a run may say, checked; its identity
    model/         the transformer, M models of one shape as one program
    data/          text in, batches and held-out windows out
    console/       what a person, W&B or torchrun sees of a command
    records/       what is on disk of runs, and the table made of it
    ptq/           a trained model measured, as it is and in every quantization
    training/      one stack of models trained to its end
    study/         a grid of runs made into jobs: priced, launched and watched
    train, sweep   the commands, beside scaling.ptq
"""
