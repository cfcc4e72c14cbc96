"""PEFT beside t2l on Phi-3, whose checkpoints fuse q, k, v and gate, up: adapters of the parts become what PEFT loads.

Expected logits come from weights that are put together here, part by part.
"""

import hashlib
import json
import pathlib
import tempfile

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from checks import T2l, arguments, check, largest, randomise

HIDDEN, INTER, HEADS, KEYS, WIDTH, LAYERS = 32, 40, 4, 2, 8, 2
PROMPT = torch.arange(3, 23).unsqueeze(0)
# Part: its module, first row, rows.
PARTS = {
    "q_proj": ("self_attn.qkv_proj", 0, HEADS * WIDTH),
    "k_proj": ("self_attn.qkv_proj", HEADS * WIDTH, KEYS * WIDTH),
    "v_proj": ("self_attn.qkv_proj", (HEADS + KEYS) * WIDTH, KEYS * WIDTH),
    "gate_proj": ("mlp.gate_up_proj", 0, INTER),
    "up_proj": ("mlp.gate_up_proj", INTER, INTER),
    "o_proj": ("self_attn.o_proj", 0, HIDDEN),
    "down_proj": ("mlp.down_proj", 0, HIDDEN),
}


def in_features(part):
    return {"o_proj": HEADS * WIDTH, "down_proj": INTER}.get(part, HIDDEN)


def base_model(folder):
    torch.manual_seed(11)
    config = transformers.Phi3Config(
        vocab_size=96,
        hidden_size=HIDDEN,
        intermediate_size=INTER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEYS,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[1] ** 0.5)
    model.save_pretrained(folder)


def load(base):
    return transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()


@torch.no_grad()
def logits(model):
    return model(PROMPT).logits


def worn(base, folder):
    """Logits under an adapter as PEFT loads it; nothing of its file may be left over."""
    model = PeftModel.from_pretrained(load(base), folder).eval()
    keys = set(load_file(folder / "adapter_model.safetensors"))
    there = {n.replace(".default", "") for n, _ in model.named_parameters() if "lora_" in n}
    assert keys == there, keys ^ there
    return logits(model)


@torch.no_grad()
def by_hand(base, folder):
    """Logits of the base model with an adapter of parts added to its rows."""
    model = load(base)
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    state = model.state_dict()
    for name, a in tensors.items():
        if ".lora_A." not in name:
            continue
        path = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        layer, part = path.split(".")[2], path.split(".")[-1]
        b = tensors[name.replace("lora_A", "lora_B")]
        alpha = config["alpha_pattern"].get(part, config["lora_alpha"])
        scaling = alpha / (len(a) ** 0.5 if config["use_rslora"] else len(a))
        module, first, rows = PARTS[part]
        assert b.shape[0] == rows, name
        state[f"model.layers.{layer}.{module}.weight"][first : first + rows] += scaling * (b @ a)
    return logits(model)


def adapter_of_parts(folder, ranks, alphas, use_rslora, seed):
    """An adapter as a generator for Phi-3 writes it before it is fused."""
    torch.manual_seed(seed)
    tensors = {}
    for layer in range(LAYERS):
        for part, rank in ranks.items():
            block = PARTS[part][0].split(".")[0]
            name = f"base_model.model.model.layers.{layer}.{block}.{part}.lora_"
            tensors[name + "A.weight"] = 0.2 * torch.randn(rank, in_features(part))
            tensors[name + "B.weight"] = 0.2 * torch.randn(PARTS[part][2], rank)
    config = dict(peft_type="LORA", r=8, lora_alpha=8, target_modules=sorted(ranks), use_rslora=use_rslora)
    config |= dict(rank_pattern=ranks, alpha_pattern=alphas, base_model_name_or_path="tiny/phi3")
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config))


def checkpoint(folder, encoder, parts, rank):
    """A random hypernetwork of the kind L for the base model's parts, in the format of docs/formats.md."""
    torch.manual_seed(13)
    latent, head_in, embedding = 16, 16, 384
    encoded, code, width = latent // 2, latent // 4, latent
    tensors = {}

    def linear(name, rows, columns, bias=True):
        tensors[f"{name}.weight"] = torch.randn(rows, columns) / columns**0.5
        if bias:
            tensors[f"{name}.bias"] = 0.1 * torch.randn(rows)

    def norm(name, size):
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = torch.ones(size), torch.zeros(size)

    linear("task_encoder.mlp.0", encoded, embedding)
    norm("task_encoder.mlp.1", encoded)
    for table, count in [("layer_depth_encoder", LAYERS), ("layer_type_encoder", len(parts))]:
        tensors[f"{table}.0.weight"] = torch.randn(count, code)
        norm(f"{table}.1", code)
    linear("mixer.1", 4 * width, width)
    linear("mixer.4", width, 4 * width)
    for block, out in [("mlp1.mlp", width), ("mlp2.mlp", width), ("mlp3", head_in)]:
        norm(f"{block}.0", width)
        linear(f"{block}.1", 4 * width, width)
        linear(f"{block}.4", out, 4 * width)
    for part in parts:
        linear(f"heads.{part}", rank * (in_features(part) + PARTS[part][2]), head_in)
    folder.mkdir()
    weights = folder / "hypernet.safetensors"
    save_file({k: v.contiguous() for k, v in tensors.items()}, weights)
    modules = [dict(name=p, in_features=in_features(p), out_features=PARTS[p][2]) for p in parts]
    manifest = dict(
        version=1,
        created_by="peft_fused.py",
        weights_sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        config=dict(
            arch="L",
            layout=dict(base_model="tiny/phi3", layers=LAYERS, modules=modules),
            scaling=dict(alpha=2.0, rank=rank, use_rslora=True),
            conditioning="text",
            embedding=embedding,
            latent=latent,
            head_in=head_in,
            head_bias=True,
            dropout=0.0,
        ),
        base_model=dict(id="tiny/phi3"),
        encoder=encoder,
        rendering=dict(max_tokens=64, input_share=0.5, system_turn=False),
        recipe={},
    )
    (folder / "manifest.json").write_text(json.dumps(manifest))


def main():
    t2l = T2l(arguments().bin)
    here = pathlib.Path(__file__).resolve().parent
    encoder = json.loads((here / "../crates/t2l/checkpoint/manifest.json").read_text())["encoder"]
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        base = root / "base"
        base_model(base)
        plain = logits(load(base))
        cases = {
            "every part, one scaling": ({p: 2 for p in PARTS}, {p: 4 for p in PARTS}, False),
            "q and v": (dict(q_proj=3, v_proj=3), dict(q_proj=6, v_proj=6), True),
            "ranks and scalings that differ": (
                dict(q_proj=1, k_proj=4, up_proj=2, o_proj=3),
                dict(q_proj=5, k_proj=2, up_proj=7, o_proj=1),
                True,
            ),
        }
        for number, (what, (ranks, alphas, rslora)) in enumerate(cases.items()):
            parts, fused, merged = (root / f"{name}{number}" for name in ["parts", "fused", "merged"])
            adapter_of_parts(parts, ranks, alphas, rslora, number)
            expected = by_hand(base, parts)
            assert largest(expected, plain) > 0.5, what
            t2l("adapter", "convert", parts, fused, "--model", base)
            check(f"{what}: PEFT's logits under the fused adapter", largest(worn(base, fused), expected), 2e-5)
            t2l("adapter", "merge", parts, "--model", base, "-o", merged)
            check(f"{what}: logits of the merged model", largest(logits(load(merged)), expected), 2e-5)
            t2l("adapter", "convert", parts, root / "way.gguf", "--model", base, "--force")
            back = root / f"back{number}"
            t2l("adapter", "convert", root / "way.gguf", back)
            check(f"{what}: PEFT's logits after GGUF and back", largest(worn(base, back), expected), 2e-5)

        model = get_peft_model(load(base), LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", use_rslora=True))
        randomise(model.eval(), 5, 0.15)
        model.save_pretrained(root / "peft")
        expected = logits(model)
        t2l("adapter", "convert", root / "peft", root / "again", "--model", base)
        check("PEFT's own adapter, written again: logits", largest(worn(base, root / "again"), expected), 1e-6)
        t2l("adapter", "merge", root / "peft", "--model", base, "-o", root / "peft-merged")
        check("PEFT's own adapter, merged: logits", largest(logits(load(root / "peft-merged")), expected), 2e-5)

        chosen = ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj"]
        checkpoint(root / "hypernet", encoder, chosen, 2)
        options = ["Sort the words by their length.", "--checkpoint", root / "hypernet"]
        t2l("generate", *options, "-o", root / "parts")
        t2l("generate", *options, "-o", root / "made", "--model", base)
        expected = by_hand(base, root / "parts")
        assert largest(expected, plain) > 0.1, "the generated adapter does next to nothing"
        targets = sorted(json.loads((root / "made" / "adapter_config.json").read_text())["target_modules"])
        assert targets == ["gate_up_proj", "o_proj", "qkv_proj"], targets
        check("t2l generate --model: PEFT's logits", largest(worn(base, root / "made"), expected), 2e-5)


if __name__ == "__main__":
    main()
