"""llama.cpp beside t2l: the same adapter gives the same logits as in PEFT, and the same continuation as here."""

import pathlib
import tempfile

import gguf
import numpy
import torch
import transformers
from llama_cpp import Llama
from peft import LoraConfig, get_peft_model

from checks import T2l, arguments, check, largest, note, randomise

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CONTINUATION = 48
TASK = "You are asked to give the superlative form of the adjective."
QUESTION = "<|im_start|>user\ntall<|im_end|>\n<|im_start|>assistant\n"
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


def llama_cpp(model, adapter=None):
    """llama.cpp with its cache in f32 and flash attention off."""
    options = dict(type_k=gguf.GGMLQuantizationType.F32, type_v=gguf.GGMLQuantizationType.F32, flash_attn=False)
    return Llama(str(model), lora_path=adapter and str(adapter), logits_all=True, n_ctx=256, verbose=False, **options)


def logits(model, tokens, adapter=None):
    """llama.cpp's logits at every position."""
    llama = llama_cpp(model, adapter)
    llama.eval(tokens)
    return torch.tensor(numpy.array(llama.scores[: len(tokens)]))


def continued(model, tokens, count, adapter=None):
    """The tokens that llama.cpp goes on with, always the likeliest."""
    llama, chosen = llama_cpp(model, adapter), []
    llama.eval(tokens)
    for _ in range(count):
        chosen.append(int(numpy.argmax(llama.scores[llama.n_tokens - 1])))
        llama.eval(chosen[-1:])
    return chosen


def continuing(t2l, what, model, tokens, root, adapter=None):
    """On the same F32 weights: the same tokens up to the first that is ahead of the next by less than a hundredth."""
    ours, values = t2l.logits(model, tokens, root, adapter, more=CONTINUATION)
    theirs = continued(model, tokens, CONTINUATION, adapter)
    best = numpy.sort(values[len(tokens) - 1 : -1], axis=-1)
    narrow = best[:, -1] - best[:, -2] < 0.01
    clear = int(narrow.argmax()) if narrow.any() else CONTINUATION
    assert clear >= 4, f"{what}: the margin is narrow after {clear} tokens; another prompt is needed"
    differing = sum(x != y for x, y in zip(ours[:clear], theirs[:clear]))
    check(f"{what}: greedy continuation, tokens that differ among {clear} of clear margin", differing, 0)


def quantised(t2l, what, model, tokens, root, adapter=None):
    """llama.cpp quantises activations too there, so nothing is asked of the figure."""
    ours, theirs = t2l.logits(model, tokens, root, adapter, more=16)[0], continued(model, tokens, 16, adapter)
    same = next((i for i, (x, y) in enumerate(zip(ours, theirs)) if x != y), 16)
    note(f"{what}, Q4_1: {same} of 16 tokens until the first that differs")


def main():
    args = arguments(model_needed=True)
    t2l = T2l(args.bin)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        plain = root / "f32.gguf"
        as_f32(args.model, plain)
        model = transformers.AutoModelForCausalLM.from_pretrained(root, gguf_file="f32.gguf", dtype=torch.float32)
        vocabulary = Llama(str(plain), vocab_only=True, verbose=False)
        tokens = vocabulary.tokenize(PROMPT.encode(), add_bos=False)
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
        rough = logits(args.model, tokens, root / "lora.gguf")
        same = (rough.argmax(-1) == expected.argmax(-1)).float().mean().item()
        note(f"adapter on the quantised model: {same:.0%} of positions have the same likeliest token as in f32")
        continuing(t2l, "base", plain, tokens, root)
        quantised(t2l, "base", args.model, tokens, root)

        # As a user has it: one file from a sentence.
        t2l("generate", TASK, "--format", "gguf", "-o", root / "task.gguf")
        for what, prompt in [("generated adapter, plain text", PROMPT), ("generated adapter, its task", QUESTION)]:
            asked = vocabulary.tokenize(prompt.encode(), add_bos=False, special=True)
            continuing(t2l, what, plain, asked, root, root / "task.gguf")
            quantised(t2l, what, args.model, asked, root, root / "task.gguf")

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
