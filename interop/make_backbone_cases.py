"""Makes fixtures/backbones: tiny random models with the numbers that transformers and PEFT compute for them.

Each folder holds config.json and model.safetensors; io.safetensors: a batch of five rows (0 whole, 1 and 3 padded on the
right, 2 and 4 on the left), its logits and last hidden state (zero where masked), the stream of row 0 before every layer,
12 greedy tokens after row 0 as `generate` finds them, and the mean loss of real tokens; adapters/NAME: PEFT folders with
the logits under them; per_sample: rows under adapters of their own; facts.json: rank, alpha and scaling of every module
as PEFT had them in force.

    python interop/make_backbone_cases.py fixtures/backbones
"""

import json
import pathlib
import shutil
import sys

import torch
import transformers
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file

torch.set_num_threads(1)
TOKENS = 13
COMMON = dict(
    vocab_size=32,
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=2,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
PHI3 = dict(COMMON, model_type="phi3", num_attention_heads=4, num_key_value_heads=2)
LLAMA = dict(COMMON, model_type="llama", num_attention_heads=4, num_key_value_heads=2, head_dim=16)
SHORT, LONG = [1.0, 1.1, 1.25, 1.5], [1.2, 2.0, 3.5, 7.0]

# Newer files have rope_parameters, older ones rope_scaling and rope_theta beside it.
MODELS = {
    "phi3_sliding": dict(PHI3, sliding_window=5, max_position_embeddings=64),
    # Row 0 is short; its greedy continuation crosses into the long factors.
    "phi3_longrope_short": dict(
        PHI3,
        max_position_embeddings=64,
        original_max_position_embeddings=18,
        rope_parameters=dict(rope_type="longrope", rope_theta=1e4, short_factor=SHORT, long_factor=LONG),
    ),
    "phi3_longrope_long": dict(
        PHI3,
        max_position_embeddings=64,
        original_max_position_embeddings=8,
        partial_rotary_factor=0.75,
        rope_theta=5e3,
        rope_scaling=dict(type="longrope", short_factor=SHORT[:3], long_factor=LONG[:3]),
    ),
    "llama_rope_dynamic_short": dict(
        LLAMA, max_position_embeddings=32, rope_parameters=dict(rope_type="dynamic", rope_theta=1e4, factor=3.0)
    ),
    "llama_rope_dynamic_long": dict(
        LLAMA, max_position_embeddings=8, rope_theta=1e4, rope_scaling=dict(type="dynamic", factor=4.0)
    ),
    "llama_rope_yarn_short": dict(
        LLAMA,
        max_position_embeddings=64,
        rope_theta=1e3,
        rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16),
    ),
    "llama_rope_yarn_long": dict(
        LLAMA,
        max_position_embeddings=64,
        rope_parameters=dict(
            rope_type="yarn",
            rope_theta=1e3,
            factor=8.0,
            original_max_position_embeddings=8,
            beta_fast=4.0,
            beta_slow=0.25,
            mscale=1.5,
            mscale_all_dim=0.5,
            truncate=False,
        ),
    ),
    "llama_rope_yarn_attention": dict(
        LLAMA,
        max_position_embeddings=32,
        rope_parameters=dict(
            rope_type="yarn",
            rope_theta=1e3,
            factor=4.0,
            original_max_position_embeddings=8,
            beta_fast=8,
            attention_factor=1.3,
        ),
    ),
    "llama_peft_settings": dict(LLAMA, head_dim=8, num_hidden_layers=3, max_position_embeddings=64),
}

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS = {
    "phi3_sliding": {
        "fused": dict(r=3, lora_alpha=6, target_modules=["qkv_proj", "gate_up_proj"]),
        "all": dict(
            r=4,
            lora_alpha=5,
            use_rslora=True,
            target_modules="all-linear",
            rank_pattern={"qkv_proj": 2},
            alpha_pattern={"layers.1.mlp.gate_up_proj": 9},
        ),
    },
    "llama_peft_settings": {
        "all_linear": dict(r=2, lora_alpha=4, target_modules="all-linear"),
        "regex": dict(r=2, lora_alpha=3, target_modules=r".*layers\.[02]\..*\.(q|v|up)_proj"),
        "regex_excluding": dict(
            r=2, lora_alpha=4, target_modules="all-linear", exclude_modules=r".*\.1\.mlp\..*|.*(k|o)_proj"
        ),
        "excluding": dict(r=2, lora_alpha=4, target_modules=SEVEN[:4], exclude_modules=["k_proj", "layers.0.self_attn.q_proj"]),
        "layers": dict(r=3, lora_alpha=4, target_modules=["q_proj", "down_proj"], layers_to_transform=[0, 2]),
        "one_layer": dict(
            r=3, lora_alpha=4, target_modules=["q_proj", "down_proj"], layers_to_transform=1, layers_pattern="layers"
        ),
        "patterns": dict(
            r=3,
            lora_alpha=7,
            target_modules=SEVEN,
            # The first that matches wins; a name matches from a dot on, or whole.
            rank_pattern={"model.layers.1.self_attn.q_proj": 1, "q_proj": 2, r".*mlp\..*": 4, "up_proj": 5},
            alpha_pattern={r"layers\.[12]\.self_attn\.(k|v)_proj": 11, "proj": 50, "v_proj": 2, r"^model\.layers\.0\.mlp.*": 0.5},
        ),
        "rslora_patterns": dict(
            r=5, lora_alpha=7, use_rslora=True, target_modules=SEVEN, rank_pattern={"v_proj": 2}, alpha_pattern={"k_proj": 3}
        ),
        "fan_in_fan_out": dict(r=2, lora_alpha=4, target_modules=["q_proj", "up_proj"], fan_in_fan_out=True),
        "full_names": dict(r=2, lora_alpha=4, target_modules=["model.layers.0.self_attn.v_proj", "layers.2.mlp.up_proj"]),
        "gaussian": dict(r=2, lora_alpha=4, target_modules=["o_proj"], init_lora_weights="gaussian"),
        "half": dict(r=2, lora_alpha=4, target_modules=["v_proj"]),
    },
}
PER_SAMPLE = {
    "phi3_sliding": {
        "a0": dict(r=3, lora_alpha=6, target_modules=["qkv_proj"]),
        "a1": dict(r=5, lora_alpha=5, use_rslora=True, target_modules=["gate_up_proj", "o_proj"]),
        "a2": dict(r=2, lora_alpha=4, target_modules=["qkv_proj", "down_proj"]),
    }
}


def fill(model, seed):
    """Weights of variance 1 / fan-in, norms around 1."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.1 * noise if parameter.dim() == 1 else noise / parameter.shape[-1] ** 0.5)


def fill_adapter(model, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn_like(parameter))


def batch(seed):
    torch.manual_seed(seed)
    ids = torch.randint(3, COMMON["vocab_size"], (5, TOKENS))
    mask = torch.ones_like(ids)
    mask[1, 9:], mask[3, 5:], mask[2, :4], mask[4, :7] = 0, 0, 0, 0
    return ids * mask, mask


@torch.no_grad()
def forward(model, ids, mask):
    out = model(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True)
    real = mask.unsqueeze(-1)
    return out.logits * real, out.hidden_states[-1] * real


@torch.no_grad()
def case(model, ids, mask, cached_differs):
    logits, hidden = forward(model, ids, mask)
    io = dict(input_ids=ids, attention_mask=mask, logits=logits, last_hidden_state=hidden)
    row = ids[:1]
    states = model(input_ids=row, use_cache=False, output_hidden_states=True).hidden_states
    io |= {f"row0.hidden_states.{i}": state[0] for i, state in enumerate(states[:-1])}
    options = dict(max_new_tokens=12, min_new_tokens=12, do_sample=False, eos_token_id=None)
    io["row0.greedy_12"] = model.generate(row, **options)[0, TOKENS:]
    uncached = row
    for _ in range(12):
        uncached = torch.cat([uncached, model(input_ids=uncached, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    same = torch.equal(uncached[0, TOKENS:], io["row0.greedy_12"])
    assert same or cached_differs, "a cache changes the continuation"
    both = (mask[:, 1:] * mask[:, :-1]).bool()
    io["labels_loss_real"] = torch.nn.functional.cross_entropy(logits[:, :-1][both], ids[:, 1:][both]).reshape(1)
    return {name: value.contiguous() for name, value in io.items()}


def wearing(folder, settings, seed):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    worn = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.05, **settings)).eval()
    fill_adapter(worn, seed)
    return worn


def save_adapter(worn, folder, name, half=False):
    worn.peft_config["default"].base_model_name_or_path = f"tiny/{name}"
    if half:
        # As a half-precision training saves it; PEFT computes in the same values.
        for parameter_name, parameter in worn.named_parameters():
            if "lora_" in parameter_name:
                parameter.data = parameter.data.to(torch.bfloat16 if "lora_A" in parameter_name else torch.float16)
    worn.save_pretrained(folder, save_embedding_layers=False)
    config = folder / "adapter_config.json"
    fields = json.loads(config.read_text())
    # PEFT writes sets in the order of the day.
    for key in ["target_modules", "exclude_modules"]:
        if isinstance(fields[key], list):
            fields[key].sort()
    config.write_text(json.dumps(fields, indent=1) + "\n")
    for parameter in worn.parameters():
        parameter.data = parameter.data.float()
    (folder / "README.md").unlink(missing_ok=True)


def effective(worn):
    layers = {n.removeprefix("base_model.model."): m for n, m in worn.named_modules() if isinstance(m, LoraLayer)}
    names = dict(r="r", alpha="lora_alpha", scaling="scaling")
    return {n: {k: getattr(m, field)["default"] for k, field in names.items()} for n, m in layers.items()}


def main():
    root = pathlib.Path(sys.argv[1])
    for number, (name, config) in enumerate(MODELS.items()):
        folder = root / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        read = transformers.AutoConfig.from_pretrained(folder)
        model = transformers.AutoModelForCausalLM.from_config(read, dtype=torch.float32, attn_implementation="eager").eval()
        fill(model, 10 * number)
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors", {"format": "pt"})
        ids, mask = batch(10 * number + 1)
        save_file(case(model, ids, mask, "dynamic" in name), folder / "io.safetensors")
        facts = dict(transformers=transformers.__version__, torch=torch.__version__, adapters={})
        base = forward(model, ids, mask)[0]
        for seed, (adapter, settings) in enumerate(ADAPTERS.get(name, {}).items()):
            worn = wearing(folder, settings, 100 * number + seed)
            place = folder / "adapters" / adapter
            save_adapter(worn, place, name, adapter == "half")
            logits = forward(worn, ids, mask)[0]
            assert (logits - base).abs().max() > 0.1, adapter
            save_file({"logits": logits.contiguous()}, place / "logits.safetensors")
            facts["adapters"][adapter] = dict(effective=effective(worn))
        rows = []
        for seed, (adapter, settings) in enumerate(PER_SAMPLE.get(name, {}).items()):
            worn = wearing(folder, settings, 1000 * number + seed)
            save_adapter(worn, folder / "per_sample" / adapter, name)
            rows.append(forward(worn, ids[seed : seed + 1], mask[seed : seed + 1])[0])
        if rows:
            order = [0, 1, 2, 0]
            io = dict(input_ids=ids[order], attention_mask=mask[order], logits=torch.cat([*rows, base[:1]]))
            save_file({k: v.contiguous() for k, v in io.items()}, folder / "per_sample" / "io.safetensors")
        (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
        print(name, flush=True)


if __name__ == "__main__":
    main()
