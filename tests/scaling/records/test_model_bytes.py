from scaling.quantization.spec import QuantSpec
from scaling.records.model_bytes import model_bytes, short_blocks


def test_bytes_count_scales_and_what_is_not_quantized(make_run):
    run, vocab = make_run("model=24k"), 256
    embedding = 256 * 32 * 2

    def size(name, granularity="channel", rule="auto", run=run):
        return model_bytes(run, vocab, QuantSpec.of(name, granularity, rule)) - embedding

    assert size("bf16") == 23552 * 2
    channels, rows80 = 2 * (3 * 32 + 32 + 2 * 80 + 32), 2 * 32
    assert size("int4") == 23552 // 2 + channels * 2
    assert size("int4", "tensor") == 23552 // 2 + 2 * 7 * 2
    assert size("int3", "block16") == 23552 * 3 // 8 + 23552 // 16 * 2
    # A row of 80 has two blocks of 32 and a short one.
    assert size("mxfp4") == 23552 // 2 + (channels - rows80) + rows80 * 3
    # e4m3 scales of blocks of 16, and one more of 32 bits for each of the 7 matrices of a layer.
    assert size("nvfp4") == 23552 // 2 + 23552 // 16 + 2 * 7 * 4
    assert size("uint4") == 23552 // 2 + channels * (16 + 4) // 8
    assert size("int4", rule="pow2_ceil") == 23552 // 2 + channels
    small = make_run("model=24k", "precision.embedding=int8", "precision.head=int4")
    assert size("int4", run=small) - size("int4") == 256 * (32 + 2) - embedding
    columns = {name: width for name, (_, width) in run.model.shapes(vocab).items() if name.startswith("layers.")}
    assert short_blocks(columns, QuantSpec.of("mxfp4")) == "down"
    assert short_blocks(columns, QuantSpec.of("int4", "block16")) == ""
