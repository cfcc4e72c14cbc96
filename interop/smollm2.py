"""PEFT beside t2l on SmolLM2: a generated adapter in PEFT, an adapter of PEFT's here, and both merged."""

import pathlib
import tempfile

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open

from checks import T2l, arguments, check, largest, randomise
from llama_cpp_adapters import MODULES, PROMPT, TASK, as_f32


def tensors(folder):
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, "pt") as file:
            for name in file.keys():
                yield name, file.get_tensor(name)


def main():
    args = arguments(model_needed=True)
    t2l = T2l(args.bin)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        as_f32(args.model, root / "f32.gguf")
        load = lambda where, **more: transformers.AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **more)
        base = root / "base"
        read = load(root, gguf_file="f32.gguf")
        # What was read from GGUF is not saved as it is, though these weights are plain f32.
        del read.config.quantization_config
        plain = transformers.AutoModelForCausalLM.from_config(read.config, dtype=torch.float32)
        plain.load_state_dict(read.state_dict())
        plain.save_pretrained(base, max_shard_size="200MB")
        tokenizer = transformers.AutoTokenizer.from_pretrained(root, gguf_file="f32.gguf")
        tokens = tokenizer(PROMPT, add_special_tokens=False).input_ids

        def logits(model):
            with torch.no_grad():
                return model.eval()(torch.tensor([tokens])).logits[0]

        plain = logits(load(base))
        check("base: our logits and those of transformers", largest(t2l.logits(base, tokens, root)[1], plain), 1e-3)

        t2l("generate", TASK, "-o", root / "generated")
        settings = dict(rank_pattern={"v_proj": 2}, alpha_pattern={"layers.3.mlp.up_proj": 3})
        theirs = get_peft_model(load(base), LoraConfig(r=8, lora_alpha=8, target_modules=MODULES, **settings))
        randomise(theirs, 5, 0.02)
        theirs.save_pretrained(root / "theirs")
        for what, lora in [("generated adapter", root / "generated"), ("adapter of PEFT's", root / "theirs")]:
            wearing = PeftModel.from_pretrained(load(base), lora)
            expected = logits(wearing)
            moved = largest(expected, plain)
            assert moved > 0.5, f"{what} moves the logits by {moved} only"
            found = t2l.logits(base, tokens, root, lora)[1]
            check(f"{what} (moves logits by {moved:.2f}): our logits and PEFT's", largest(found, expected), 1e-3)
            merged = root / f"merged-{lora.name}"
            t2l("adapter", "merge", lora, "--model", base, "-o", merged)
            reference = wearing.merge_and_unload().state_dict()
            worst = max(largest(values, reference[name]) for name, values in tensors(merged))
            check(f"{what}: adapter merge and merge_and_unload", worst, 1e-6)
            check(f"{what}: logits of the merged model", largest(logits(load(merged)), expected), 1e-3)


if __name__ == "__main__":
    main()
