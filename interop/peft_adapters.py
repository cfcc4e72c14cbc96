"""PEFT beside t2l: merging, mixing, comparing, and the way through GGUF and back."""

import pathlib
import tempfile

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from checks import T2l, arguments, check, largest, randomise

SHAPE = dict(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
)
FAMILIES = {
    "llama": transformers.LlamaConfig(**SHAPE, tie_word_embeddings=False),
    "qwen2": transformers.Qwen2Config(**{k: v for k, v in SHAPE.items() if k != "head_dim"}, tie_word_embeddings=True),
    "gemma2": transformers.Gemma2Config(**SHAPE),
}
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROMPT = torch.arange(3, 23).unsqueeze(0)


def adapter(config, base, folder, seed, **settings):
    """A random adapter as PEFT writes it, and the logits it gives."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    wearing = get_peft_model(model, LoraConfig(target_modules=MODULES, task_type="CAUSAL_LM", **settings))
    randomise(wearing, seed, 0.15)
    wearing.save_pretrained(folder)
    with torch.no_grad():
        return wearing.eval()(PROMPT).logits


def worn(base, folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        return PeftModel.from_pretrained(model, folder).eval()(PROMPT).logits


def agreeing(t2l, what, base, folder, root, bound=2e-5):
    """Our logits of a base wearing an adapter, beside those of PEFT."""
    expected = worn(base, folder)[0]
    moved = largest(expected, worn_by_none(base)[0])
    found = t2l.logits(base, PROMPT[0].tolist(), root, folder)[1]
    check(f"{what} (moves logits by {moved:.2f}): our logits and PEFT's", largest(found, expected), bound)


def worn_by_none(base):
    with torch.no_grad():
        return transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()(PROMPT).logits


def weights(folder):
    tensors = {}
    for shard in pathlib.Path(folder).glob("*.safetensors"):
        tensors |= load_file(shard)
    return tensors


def merging(t2l, family, base, lora, root):
    for dtype, bound in [(torch.float32, 1e-6), (torch.bfloat16, 8e-3), (torch.float16, 1e-3)]:
        for shards in ["5GB", "20KB"]:
            model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
            stored = root / f"base-{dtype}-{shards}"
            model.save_pretrained(stored, max_shard_size=shards)
            ours = root / f"merged-{dtype}-{shards}"
            result = t2l("adapter", "merge", lora, "--model", stored, "-o", ours)
            theirs = root / f"peft-{dtype}-{shards}"
            PeftModel.from_pretrained(model, lora).merge_and_unload().save_pretrained(theirs)
            found, expected, before = weights(ours), weights(theirs), weights(stored)
            assert found.keys() == expected.keys() == before.keys(), found.keys() ^ expected.keys()
            assert all(found[k].dtype == dtype for k in found), dtype
            changed = sum(not torch.equal(found[k], before[k]) for k in found)
            assert changed == result["merged"] == 3 * len(MODULES), (changed, result)
            what = f"{family}, {str(dtype)[6:]}, {result['shards']} shards: merge_and_unload"
            check(what, max(largest(found[k].float(), expected[k].float()) for k in found), bound)
            transformers.AutoModelForCausalLM.from_pretrained(ours)


def mixing(t2l, family, base, loras, root):
    """The first adapter must not be rank-stabilised: PEFT's mixture would inherit that, and be √rank times too large."""
    for method, options in [("linear", {}), ("cat", {}), ("svd", {"svd_rank": 3})]:
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        wearing = PeftModel.from_pretrained(model, loras[0], adapter_name="a")
        wearing.load_adapter(loras[1], adapter_name="b")
        wearing.add_weighted_adapter(["a", "b"], [0.7, -0.4], "mixed", combination_type=method, **options)
        wearing.set_adapter("mixed")
        with torch.no_grad():
            expected = wearing.eval()(PROMPT).logits
        ours = root / f"mixed-{method}"
        rank = ["--rank", options["svd_rank"]] if options else []
        t2l("adapter", "mix", *loras, "--weights", "0.7,-0.4", "--method", method, *rank, "-o", ours)
        if method == "cat":
            agreeing(t2l, f"{family}: an adapter of ours", base, ours, root)
        check(f"{family}: mix {method}", largest(worn(base, ours), expected), 2e-4)


def comparing(t2l, family, loras, scalings):
    """Cosines and angles of the whole matrices, against those made from the factors."""
    found = t2l("adapter", "diff", *loras)
    files = [load_file(pathlib.Path(lora) / "adapter_model.safetensors") for lora in loras]
    worst = {"norm": 0.0, "cosine": 0.0, "angle": 0.0}
    for module in found["modules"]:
        block = "self_attn" if module["name"] in MODULES[:4] else "mlp"
        name = f"base_model.model.model.layers.{module['layer']}.{block}.{module['name']}.lora_"
        x, y = (s * (f[name + "B.weight"].double() @ f[name + "A.weight"].double()) for f, s in zip(files, scalings))
        worst["norm"] = max(worst["norm"], abs(module["norm_a"] - x.norm().item()))
        worst["cosine"] = max(worst["cosine"], abs(module["cosine"] - ((x * y).sum() / x.norm() / y.norm()).item()))
        (u, s, vh), (p, t, qh) = torch.linalg.svd(x, full_matrices=False), torch.linalg.svd(y, full_matrices=False)
        m, n = int((s > 1e-9).sum()), int((t > 1e-9).sum())
        for angles, overlap in [("angles_out", u[:, :m].T @ p[:, :n]), ("angles_in", vh[:m] @ qh[:n].T)]:
            expected = torch.rad2deg(torch.linalg.svdvals(overlap).clamp(max=1).acos()).sort().values
            worst["angle"] = max(worst["angle"], largest(torch.tensor(module[angles], dtype=torch.float64), expected))
    for what, difference in worst.items():
        check(f"{family}: diff, {what}", difference, 1e-6)


def main():
    t2l = T2l(arguments().bin)
    for family, config in FAMILIES.items():
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            base = root / "base"
            torch.manual_seed(7)
            transformers.AutoModelForCausalLM.from_config(config).save_pretrained(base)
            one, two, odd = root / "one", root / "two", root / "odd"
            adapter(config, base, one, 1, r=4, lora_alpha=6, use_rslora=True)
            adapter(config, base, two, 2, r=4, lora_alpha=3)
            patterns = dict(rank_pattern={"v_proj": 2, "layers.1.mlp.up_proj": 5}, alpha_pattern={"q_proj": 9})
            logits = adapter(config, base, odd, 3, r=4, lora_alpha=6, use_rslora=True, **patterns)
            agreeing(t2l, f"{family}: an adapter of PEFT's", base, odd, root)
            merging(t2l, family, base, odd, root)
            mixing(t2l, family, base, [two, one], root)
            comparing(t2l, family, [one, two], [6 / 4**0.5, 3 / 4])
            t2l("adapter", "convert", odd, root / "odd.gguf", "--model", base)
            t2l("adapter", "convert", root / "odd.gguf", root / "back")
            check(f"{family}: logits after GGUF and back", largest(worn(base, root / "back"), logits), 2e-5)


if __name__ == "__main__":
    main()
