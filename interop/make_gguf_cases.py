"""Makes fixtures/gguf-models: tiny models of the architectures that t2l reads from GGUF, with the logits of transformers.

A folder for each family: the model as transformers saves it (weights of bf16 precision), the same weights in `plain.gguf`,
quantised in `q8_0.gguf`, and `io.safetensors` with token ids and, for each file, the logits of the weights it stands for. In
the folders that end in `_k` the weights are random blocks of the K-quants and there is no model folder.

Tensor names come from the `gguf` package, and so do all numbers that quantised blocks stand for.

    python interop/make_gguf_cases.py [family…]
"""

import copy
import pathlib
import shutil
import sys

import gguf
import numpy
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).parent.parent / "fixtures" / "gguf-models"
VOCABULARY, TOKENS = 64, 13

SMALL = dict(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)
# Rows of the stream's width hold whole K-quant blocks.
WIDE = SMALL | dict(hidden_size=256)
GEMMA3 = dict(query_pre_attn_scalar=8, sliding_window=4, attention_dropout=0.0)
LLAMA3 = dict(
    rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32,
    rope_theta=10000.0,
)
# Half of a head's width turns: two frequencies.
PHI3 = {k: v for k, v in SMALL.items() if k != "head_dim"} | dict(
    intermediate_size=64, partial_rotary_factor=0.5, sliding_window=None
)
LONGROPE = dict(
    rope_type="longrope", rope_theta=1e4, partial_rotary_factor=0.5, short_factor=[1.0, 1.5], long_factor=[1.5, 6.0]
)
YARN = dict(rope_type="yarn", factor=4.0, rope_theta=1e4, original_max_position_embeddings=64)
FAMILIES = {
    "llama": ("LLAMA", transformers.LlamaConfig, SMALL | dict(rope_parameters=LLAMA3, max_position_embeddings=256)),
    "qwen2": ("QWEN2", transformers.Qwen2Config, {k: v for k, v in SMALL.items() if k != "head_dim"}),
    "qwen3": ("QWEN3", transformers.Qwen3Config, SMALL | dict(head_dim=16, tie_word_embeddings=True)),
    "gemma2": ("GEMMA2", transformers.Gemma2Config, SMALL | dict(
        query_pre_attn_scalar=8, sliding_window=4, attn_logit_softcapping=5.0, final_logit_softcapping=3.0,
    )),
    # Its sixth layer is the first that sees everything.
    "gemma3": ("GEMMA3", transformers.Gemma3TextConfig, SMALL | GEMMA3 | dict(
        num_hidden_layers=7, num_attention_heads=2, num_key_value_heads=1, head_dim=16, query_pre_attn_scalar=16,
    )),
    "qwen3_k": ("QWEN3", transformers.Qwen3Config, WIDE),
    "gemma3_k": ("GEMMA3", transformers.Gemma3TextConfig, WIDE | GEMMA3),
    "phi3": ("PHI3", transformers.Phi3Config, PHI3 | dict(sliding_window=5, rope_parameters=dict(
        rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5,
    ))),
    # 13 tokens are within the original context of the first and beyond that of the second.
    "phi3_longrope_short": ("PHI3", transformers.Phi3Config, PHI3 | dict(
        rope_parameters=dict(LONGROPE), original_max_position_embeddings=32,
    )),
    "phi3_longrope_long": ("PHI3", transformers.Phi3Config, PHI3 | dict(
        rope_parameters=dict(LONGROPE), original_max_position_embeddings=8,
    )),
    "llama_yarn": ("LLAMA", transformers.LlamaConfig, SMALL | dict(
        rope_parameters=YARN | dict(
            attention_factor=0.8, beta_fast=256.0, beta_slow=16.0, original_max_position_embeddings=4096,
        ),
        max_position_embeddings=16384,
    )),
    "qwen2_yarn": ("QWEN2", transformers.Qwen2Config, {k: v for k, v in SMALL.items() if k != "head_dim"} | dict(
        rope_parameters=YARN,
    )),
}
K_QUANTS = [Type.Q4_K, Type.Q6_K, Type.Q5_K, Type.Q3_K, Type.Q2_K]
# Byte offsets of the f16 scales in a block.
SCALES = {Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208]}


def build(config):
    """A model with every parameter drawn, rounded to bf16."""
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    plus_one = config.model_type.startswith("gemma")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn_like(parameter)
            if name.endswith("norm.weight"):
                # Halves and eighths: exact in bf16, with and without Gemma's one added.
                drawn = torch.randint(4, 12, parameter.shape) / 8 - (1 if plus_one else 0)
            elif name.endswith("bias"):
                drawn *= 0.3
            elif "embed" not in name:
                drawn /= parameter.shape[-1] ** 0.5
            parameter.copy_(drawn.bfloat16().float())
    return model.eval()


def random_blocks(rng, kind, shape):
    """Blocks of any bytes, scaled so that the values keep the size of a stream."""
    values, size = gguf.GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, (shape[0] * shape[1] // values, size), dtype=numpy.uint8)
    scales = numpy.ones(len(data), dtype=numpy.float16) / 64

    def put(scale):
        for at in SCALES[kind]:
            data[:, at : at + 2] = (scales * scale).astype(numpy.float16).view(numpy.uint8).reshape(-1, 2)

    put(1.0)
    spread = gguf.quants.dequantize(data, kind).std()
    put(shape[1] ** -0.5 / spread)
    return data.reshape(shape[0], -1)


def permute(values, heads):
    """llama.cpp's order of rotated rows, for the llama architecture."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def divisors(rope, width):
    """What llama.cpp divides frequencies by, in place of Llama 3's settings."""
    frequencies = rope["rope_theta"] ** (-numpy.arange(0, width, 2, dtype=numpy.float64) / width)
    waves = 2 * numpy.pi / frequencies
    low, high = (rope["original_max_position_embeddings"] / rope[k] for k in ("low_freq_factor", "high_freq_factor"))
    smooth = (rope["original_max_position_embeddings"] / waves - rope["low_freq_factor"]) / (
        rope["high_freq_factor"] - rope["low_freq_factor"]
    )
    between = 1 / ((1 - smooth) / rope["factor"] + smooth)
    return numpy.where(waves < high, 1.0, numpy.where(waves > low, rope["factor"], between)).astype(numpy.float32)


def metadata(writer, config, architecture):
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if config.model_type.startswith("gemma"):
        writer.add_sliding_window(config.sliding_window)
    if config.model_type == "phi3":
        writer.add_sliding_window(config.sliding_window or 0)
        writer.add_rope_dimension_count(int(rope["partial_rotary_factor"] * config.hidden_size) // config.num_attention_heads)
    scaling(writer, config)
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")


def scaling(writer, config):
    """What llama.cpp calls the settings of YaRN and LongRoPE, and the latter's divisors."""
    rope = config.rope_parameters
    if rope.get("rope_type") == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for key, add in {
            "attention_factor": writer.add_rope_scaling_yarn_attn_factor,
            "beta_fast": writer.add_rope_scaling_yarn_beta_fast,
            "beta_slow": writer.add_rope_scaling_yarn_beta_slow,
        }.items():
            if key in rope:
                add(rope[key])
    if rope.get("rope_type") == "longrope":
        original = config.original_max_position_embeddings
        growth = config.max_position_embeddings / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors((1 + numpy.log(growth) / numpy.log(original)) ** 0.5)
        for name in ("long", "short"):
            divisors = numpy.array(rope[f"{name}_factor"], dtype=numpy.float32)
            writer.add_tensor(f"rope_factors_{name}.weight", divisors)


def write(path, model, architecture, kind, rng):
    """Writes a model with matrices as `kind` says, and sets its weights to what the file stands for."""
    config = model.config
    architecture = gguf.MODEL_ARCH[architecture]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    metadata(writer, config, architecture)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    gemma, llama = config.model_type.startswith("gemma"), config.model_type == "llama"
    if llama and config.rope_parameters["rope_type"] == "llama3":
        width = config.hidden_size // config.num_attention_heads
        writer.add_tensor("rope_freqs.weight", divisors(config.rope_parameters, width))
    matrices = 0
    for name, parameter in model.named_parameters():
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        values = parameter.detach().numpy().copy()
        if values.ndim == 1:
            writer.add_tensor(target, values + 1 if gemma and name.endswith("norm.weight") else values)
            continue
        if llama and ".q_proj." in name:
            values = permute(values, config.num_attention_heads)
        if llama and ".k_proj." in name:
            values = permute(values, config.num_key_value_heads)
        chosen = kind(matrices, values.shape)
        matrices += 1
        if chosen in SCALES:
            data = random_blocks(rng, chosen, values.shape)
        else:
            data = gguf.quants.quantize(values, chosen)
        writer.add_tensor(target, data, raw_dtype=chosen)
        stands_for = gguf.quants.dequantize(data, chosen).reshape(values.shape)
        if llama and (".q_proj." in name or ".k_proj." in name):
            heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
            pairs = stands_for.reshape(heads, -1, 2, values.shape[1])
            stands_for = pairs.swapaxes(1, 2).reshape(values.shape)
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(numpy.ascontiguousarray(stands_for)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    torch.set_num_threads(1)
    wanted = sys.argv[1:] or FAMILIES
    for seed, (family, (architecture, kind, settings)) in enumerate(FAMILIES.items()):
        if family not in wanted:
            continue
        torch.manual_seed(seed)
        rng = numpy.random.default_rng(seed)
        folder = OUT / family
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        config = kind(**settings)
        model = build(config)
        ids = torch.randint(3, VOCABULARY, (1, TOKENS))
        io = {"input_ids": ids}
        if family.endswith("_k"):
            kinds = {"k": lambda i, shape: K_QUANTS[i % len(K_QUANTS)] if shape[1] % 256 == 0 else Type.Q8_0}
        else:
            # A copy: buffers, frequencies among them, would not come back whole from bf16.
            copy.deepcopy(model).bfloat16().save_pretrained(folder)
            (folder / "generation_config.json").unlink(missing_ok=True)
            plain = Type.F32 if family == "llama" else Type.BF16
            kinds = {"plain": lambda i, shape: plain, "q8_0": lambda i, shape: Type.Q8_0}
        for stem, chosen in kinds.items():
            write(folder / f"{stem}.gguf", model, architecture, chosen, rng)
            with torch.no_grad():
                io[f"logits.{stem}"] = model(ids).logits[0].float().contiguous()
        save_file(io, folder / "io.safetensors")
        for file in folder.iterdir():
            file.chmod(0o644)
        size = sum(f.stat().st_size for f in folder.iterdir())
        print(family, size // 1000, "kB", {k: f"{v.float().std():.3f}" for k, v in io.items() if k != "input_ids"})


if __name__ == "__main__":
    main()
