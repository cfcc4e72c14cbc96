"""llama.cpp beside t2l: the same adapter gives the same logits there as in PEFT."""

import pathlib
import tempfile

import gguf
import numpy
import torch
import transformers
from llama_cpp import Llama
from peft import LoraConfig, get_peft_model

from checks import T2l, arguments, check, largest, randomise

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROMPT = "The capital of France is Paris. The capital of Italy is"


def as_f32(model, path):
    """The same model with every tensor dequantised."""
    reader = gguf.GGUFReader(model)
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, inner)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, values.astype(numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def logits(model, tokens, adapter=None):
    """llama.cpp's logits at every position; the cache in f32 and flash attention off."""
    options = dict(type_k=gguf.GGMLQuantizationType.F32, type_v=gguf.GGMLQuantizationType.F32, flash_attn=False)
    llama = Llama(str(model), lora_path=adapter and str(adapter), logits_all=True, n_ctx=128, verbose=False, **options)
    llama.eval(tokens)
    return torch.tensor(numpy.array(llama.scores[: len(tokens)]))


def main():
    args = arguments(("--model", "SmolLM2-135M-Instruct as GGUF"))
    t2l = T2l(args.t2l)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        plain = root / "f32.gguf"
        as_f32(args.model, plain)
        model = transformers.AutoModelForCausalLM.from_pretrained(root, gguf_file="f32.gguf", dtype=torch.float32)
        tokens = Llama(str(plain), vocab_only=True, verbose=False).tokenize(PROMPT.encode(), add_bos=False)
        with torch.no_grad():
            base = model.eval()(torch.tensor([tokens])).logits[0]
        check("base: logits", largest(logits(plain, tokens), base), 1e-3)

        settings = dict(rank_pattern={"v_proj": 2}, alpha_pattern={"layers.3.mlp.up_proj": 3})
        config = LoraConfig(r=8, lora_alpha=8, use_rslora=True, target_modules=MODULES, **settings)
        wearing = get_peft_model(model, config)
        randomise(wearing, 5, 0.02)
        wearing.save_pretrained(root / "lora")
        with torch.no_grad():
            expected = wearing.eval()(torch.tensor([tokens])).logits[0]
        moved = largest(expected, base)
        assert moved > 1.0, f"the adapter moves the logits by {moved} only"
        t2l("adapter", "convert", root / "lora", root / "lora.gguf", "--model", args.model)
        found = logits(plain, tokens, root / "lora.gguf")
        check(f"adapter that moves logits by {moved:.2f}: logits", largest(found, expected), 1e-3)
        agreeing = (found.argmax(-1) == expected.argmax(-1)).float().mean().item()
        check("adapter: positions with another likeliest token", 1 - agreeing, 0.0)
        quantised = logits(args.model, tokens, root / "lora.gguf")
        same = (quantised.argmax(-1) == expected.argmax(-1)).float().mean().item()
        print(f"on the quantised model {same:.0%} of positions have the same likeliest token")

        # A file with nothing but what llama.cpp's converter writes.
        foreign = root / "foreign.gguf"
        reader = gguf.GGUFReader(root / "lora.gguf")
        writer = gguf.GGUFWriter(foreign, "llama")
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, reader.fields[gguf.Keys.Adapter.LORA_ALPHA].contents())
        for tensor in reader.tensors:
            writer.add_tensor(tensor.name, numpy.array(tensor.data))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        t2l("adapter", "convert", foreign, root / "back", "--model", args.model)
        found = t2l("adapter", "diff", root / "lora", root / "back")
        check("converter's layout read back: relative distance", found["distance"] / found["norm_a"], 1e-6)


if __name__ == "__main__":
    main()
