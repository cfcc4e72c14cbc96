"""What needs numpy, safetensors and gguf only: dequantisation, merging, the layout of GGUF adapters."""

import importlib.util
import json
import pathlib
import tempfile

import gguf
import numpy
from safetensors.numpy import load_file, save_file

from checks import T2l, arguments, check, largest

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures" / "gguf"
HEADS, KV_HEADS, WIDTH, HIDDEN, INTER, LAYERS, RANK = 4, 2, 8, 24, 40, 2, 3
# Where a module lies, its shape [out, in], and what llama.cpp calls it.
MODULES = {
    "q_proj": ("self_attn", HEADS * WIDTH, HIDDEN, "attn_q"),
    "k_proj": ("self_attn", KV_HEADS * WIDTH, HIDDEN, "attn_k"),
    "v_proj": ("self_attn", KV_HEADS * WIDTH, HIDDEN, "attn_v"),
    "o_proj": ("self_attn", HIDDEN, HEADS * WIDTH, "attn_output"),
    "gate_proj": ("mlp", INTER, HIDDEN, "ffn_gate"),
    "up_proj": ("mlp", INTER, HIDDEN, "ffn_up"),
    "down_proj": ("mlp", HIDDEN, INTER, "ffn_down"),
}


def random_blocks(path):
    """Blocks of every quantised type, drawn as those of the fixture are, from another seed."""
    spec = importlib.util.spec_from_file_location("make", FIXTURES / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    rng = numpy.random.default_rng(11)
    writer = gguf.GGUFWriter(path, "test")
    for kind in make.SCALES:
        writer.add_tensor(kind.name.lower(), make.blocks(rng, kind, 64, 512), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def dequantising(t2l, what, path, root):
    """Compares bits, NaN included."""
    out = root / "values"
    out.mkdir(exist_ok=True)
    names = t2l.run("examples/dequantise", path, out).splitlines()
    tensors = gguf.GGUFReader(path).tensors
    assert names == [tensor.name for tensor in tensors]
    values, differing, kinds = 0, 0, set()
    for i, tensor in enumerate(tensors):
        with numpy.errstate(all="ignore"):
            expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32).ravel()
        found = numpy.fromfile(out / f"{i}.f32", numpy.uint32)
        (out / f"{i}.f32").unlink()
        assert found.shape == expected.shape, tensor.name
        values, differing = values + found.size, differing + int((found != expected.view(numpy.uint32)).sum())
        kinds.add(tensor.tensor_type.name)
    check(f"{what}: {values} values of {', '.join(sorted(kinds))}: values with other bits", differing, 0)


def adapter(folder, rng):
    """A PEFT folder: every module of every layer, rank-stabilised."""
    tensors = {}
    for layer in range(LAYERS):
        for name, (block, rows, cols, _) in MODULES.items():
            place = f"base_model.model.model.layers.{layer}.{block}.{name}"
            tensors[f"{place}.lora_A.weight"] = rng.standard_normal((RANK, cols)).astype(numpy.float32)
            tensors[f"{place}.lora_B.weight"] = rng.standard_normal((rows, RANK)).astype(numpy.float32)
    config = dict(peft_type="LORA", task_type="CAUSAL_LM", r=RANK, lora_alpha=6, use_rslora=True)
    config |= dict(target_modules=list(MODULES), base_model_name_or_path="some/model")
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return tensors, 6 / RANK**0.5


def model(folder, rng):
    """The weights that the adapter is for, in a folder as transformers lays it out."""
    weights = {"model.norm.weight": rng.standard_normal(HIDDEN).astype(numpy.float32)}
    for layer in range(LAYERS):
        for name, (block, rows, cols, _) in MODULES.items():
            values = rng.standard_normal((rows, cols)).astype(numpy.float32)
            weights[f"model.layers.{layer}.{block}.{name}.weight"] = values
    config = dict(model_type="llama", num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=WIDTH)
    config |= dict(hidden_size=HIDDEN, intermediate_size=INTER, num_hidden_layers=LAYERS, vocab_size=32)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    return weights


def interleaved(rows, heads):
    """llama.cpp's order of the rows of rotated heads."""
    halves = rows.reshape(heads, 2, WIDTH // 2, -1)
    return halves.swapaxes(1, 2).reshape(rows.shape)


def merging(t2l, root, tensors, scaling, weights):
    t2l("adapter", "merge", root / "lora", "--model", root / "model", "-o", root / "merged")
    found, worst = load_file(root / "merged" / "model.safetensors"), 0.0
    assert found.keys() == weights.keys()
    for name, values in weights.items():
        place = "base_model.model." + name.removesuffix(".weight")
        a, b = tensors.get(f"{place}.lora_A.weight"), tensors.get(f"{place}.lora_B.weight")
        update = 0.0 if a is None else scaling * (b.astype(numpy.float64) @ a.astype(numpy.float64))
        worst = max(worst, largest(found[name], values + update))
    check("adapter merge: W + s·B·A in f64", worst, 1e-5)


def gguf_layout(t2l, root, tensors, scaling):
    t2l("adapter", "convert", root / "lora", root / "lora.gguf", "--model", root / "model")
    reader = gguf.GGUFReader(root / "lora.gguf")
    field = lambda key: reader.fields[key].contents()
    assert (field("general.type"), field("adapter.type"), field("general.architecture")) == ("adapter", "lora", "llama")
    factor = field("adapter.lora.alpha") / RANK
    found = {tensor.name: tensor.data for tensor in reader.tensors}
    assert len(found) == len(tensors)
    worst = 0.0
    for layer in range(LAYERS):
        for name, (block, _, _, theirs) in MODULES.items():
            place = f"base_model.model.model.layers.{layer}.{block}.{name}"
            a, b = tensors[f"{place}.lora_A.weight"], tensors[f"{place}.lora_B.weight"]
            heads = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(name)
            expected = scaling * ((interleaved(b, heads) if heads else b).astype(numpy.float64) @ a)
            tensor = lambda which: found[f"blk.{layer}.{theirs}.weight.lora_{which}"].astype(numpy.float64)
            worst = max(worst, largest(factor * (tensor("b") @ tensor("a")), expected))
    check("adapter convert to GGUF: updates as llama.cpp computes them", worst, 1e-5)
    t2l("adapter", "convert", root / "lora.gguf", root / "back")
    back = load_file(root / "back" / "adapter_model.safetensors")
    check("adapter convert back: factors", max(largest(back[name], tensors[name]) for name in tensors), 1e-6)


def main():
    args = arguments()
    t2l = T2l(args.bin)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        dequantising(t2l, "fixture", FIXTURES / "blocks.gguf", root)
        random_blocks(root / "random.gguf")
        dequantising(t2l, "random blocks", root / "random.gguf", root)
        if args.model:
            dequantising(t2l, "SmolLM2", args.model, root)
        rng = numpy.random.default_rng(3)
        tensors, scaling = adapter(root / "lora", rng)
        merging(t2l, root, tensors, scaling, model(root / "model", rng))
        gguf_layout(t2l, root, tensors, scaling)


if __name__ == "__main__":
    main()
