"""Times this project beside PyTorch (and llama.cpp), in turn, in one run, and prints ratios.

    cargo bench -p t2l --bench worker --no-run
    python benches/compare.py --worker target/release/deps/worker-… [--rounds 5] [--only sft,sft-bf16,generate,decode,llama.cpp] [--model GGUF]

The python is that of the environment that `cargo xtask interop` makes, below T2L_INTEROP_ENV where that is set, or any other with
torch, transformers, gguf, numpy and llama-cpp-python. The model is SmolLM2-135M-Instruct as GGUF: what
`t2l models path smollm2-135m-instruct` prints, where --model does not say.

The PyTorch side is written from the maths: a Llama forward pass with per-row LoRA through torch's own operations, the
hypernetwork as modules, transformers for decoding. Nothing of it is used by the project itself.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

torch.set_num_threads(os.cpu_count())


def weights(model):
    """SmolLM2 dequantised to f32, llama.cpp's row order undone."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    out = {}
    for t in GGUFReader(model).tensors:
        w = torch.from_numpy(dequantize(t.data, t.tensor_type).copy()).float()
        heads = {"attn_q": 9, "attn_k": 3}.get(t.name.split(".")[-2])
        if heads:
            w = w.view(heads, 32, 2, w.shape[1]).transpose(1, 2).reshape(w.shape)
        out[t.name] = w
    return out


class Llama:
    def __init__(self, model):
        self.w = weights(model)
        half = torch.arange(32) / 32
        angles = torch.outer(torch.arange(2048).float(), 100000.0**-half)
        self.cos, self.sin = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)

    def rope(self, x):
        t = x.shape[2]
        a, b = x.chunk(2, -1)
        return x * self.cos[:t] + torch.cat([-b, a], -1) * self.sin[:t]

    def norm(self, x, w):
        return F.rms_norm(x, (576,), w, 1e-5)

    def hidden(self, ids, lora, scale):
        w, x = self.w, self.w["token_embd.weight"][ids]
        rows, tokens = ids.shape
        for i in range(30):
            p = f"blk.{i}."
            y = self.norm(x, w[p + "attn_norm.weight"])
            q, k, v = (F.linear(y, w[p + f"attn_{n}.weight"]) for n in "qkv")
            for name in ("q", "v"):
                a, b = lora[name][0][:, i], lora[name][1][:, i]
                update = (y @ a.transpose(1, 2)) @ b.transpose(1, 2) * scale
                if name == "q":
                    q = q + update
                else:
                    v = v + update
            q, k, v = (z.view(rows, tokens, -1, 64).transpose(1, 2) for z in (q, k, v))
            z = F.scaled_dot_product_attention(self.rope(q), self.rope(k), v, is_causal=True, enable_gqa=True)
            x = x + F.linear(z.transpose(1, 2).reshape(rows, tokens, 576), w[p + "attn_output.weight"])
            y = self.norm(x, w[p + "ffn_norm.weight"])
            y = F.silu(F.linear(y, w[p + "ffn_gate.weight"])) * F.linear(y, w[p + "ffn_up.weight"])
            x = x + F.linear(y, w[p + "ffn_down.weight"])
        return self.norm(x, w["output_norm.weight"])


class Residual(torch.nn.Module):
    def __init__(self, d):
        super().__init__()
        self.mlp = torch.nn.Sequential(
            torch.nn.LayerNorm(d), torch.nn.Linear(d, 4 * d), torch.nn.SiLU(), torch.nn.Linear(4 * d, d), torch.nn.SiLU()
        )

    def forward(self, x):
        return x + self.mlp(x)


class Hypernet(torch.nn.Module):
    """L, M and S, all tasks, layers and modules in one batch."""

    def __init__(self, arch, modules, layers, embedding, rank=8, k=128, head_in=512):
        super().__init__()
        n = torch.nn
        self.arch, self.modules_, self.layers, self.rank, d = arch, modules, layers, rank, k
        self.task = n.Sequential(n.Linear(embedding, k // 2), n.LayerNorm(k // 2))
        self.depth = n.Sequential(n.Embedding(layers, k // 4), n.LayerNorm(k // 4))
        self.kind = n.Sequential(n.Embedding(len(modules), k // 4), n.LayerNorm(k // 4))
        self.mixer = n.Sequential(n.Linear(d, 4 * d), n.SiLU(), n.Linear(4 * d, d), n.SiLU())
        self.mlp1, self.mlp2 = Residual(d), Residual(d)
        self.mlp3 = n.Sequential(n.LayerNorm(d), n.Linear(d, 4 * d), n.SiLU(), n.Linear(4 * d, head_in), n.SiLU())
        width = {
            "L": lambda i, o: rank * (i + o),
            "M": lambda i, o: rank * max(i, o),
            "S": lambda i, o: max(i, o),
        }[arch]
        self.heads = n.ModuleList(n.Linear(head_in, width(i, o)) for i, o in modules)
        self.wanted = n.Parameter(torch.randn(len(modules), 2, 1, d))
        self.wanted_norm = n.LayerNorm(d)
        angles = torch.outer(torch.arange(rank).float(), 10000.0 ** (-torch.arange(d // 2) / (d // 2)))
        self.register_buffer("cos", torch.cat([angles.cos()] * 2, -1))
        self.register_buffer("sin", torch.cat([angles.sin()] * 2, -1))

    def forward(self, tasks):
        n, m, layers, r = tasks.shape[0], len(self.modules_), self.layers, self.rank
        task = self.task(tasks)[None, :, None].expand(m, n, layers, -1)
        depth = self.depth(torch.arange(layers))[None, None].expand(m, n, layers, -1)
        kind = self.kind(torch.arange(m))[:, None, None].expand(m, n, layers, -1)
        u = self.mlp1(self.mixer(torch.cat([task, depth, kind], -1))).view(m, n * layers, -1)
        out = []
        if self.arch == "L":
            y = self.mlp3(self.mlp2(u))
            for head, z, (i, o) in zip(self.heads, y, self.modules_):
                z = head(z)
                a = z[:, : r * i].view(n, layers, r, i)
                out.append((a, z[:, r * i :].view(n, layers, r, o).transpose(2, 3)))
            return out
        v = self.mlp2(u[:, None] + self.wanted_norm(self.wanted))
        if self.arch == "S":
            a, b = v.chunk(2, -1)
            v = v[..., None, :] * self.cos + torch.cat([-b, a], -1)[..., None, :] * self.sin
            v = self.mlp2(v)
        y = self.mlp3(v)
        for head, z, (i, o) in zip(self.heads, y, self.modules_):
            z = head(z).view(2, n, layers, r, max(i, o))
            out.append((z[0, ..., :i], z[1, ..., :o].transpose(2, 3)))
        return out


class Peer:
    """PyTorch's side, by the same names."""

    def __init__(self, model):
        self.model = model
        self.llama, self.trained, self.hypernets, self.hf = None, None, {}, None

    def sft(self, rows, tokens, bf16=False):
        self.llama = self.llama or Llama(self.model())
        if self.trained is None:
            self.trained = Hypernet("L", [(576, 576), (576, 192)], 30, 384)
            for head in self.trained.heads:
                torch.nn.init.zeros_(head.weight)
        ids = torch.tensor([[(t * 37 + r * 101) % 49000 for t in range(tokens)] for r in range(rows)])
        tasks = torch.tensor([((i * 7919) % 1000) / 500 - 1 for i in range(rows * 384)]).view(rows, 384)
        started = time.perf_counter()
        (qa, qb), (va, vb) = self.trained(tasks)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            h = self.llama.hidden(ids, {"q": (qa, qb), "v": (va, vb)}, 16 / 8**0.5)
        h = h.float()
        at = h[:, -17:-1].reshape(-1, 576)
        logits = at @ self.llama.w["token_embd.weight"].T
        loss = F.cross_entropy(logits, ids[:, -16:].reshape(-1), label_smoothing=0.1)
        loss = loss + 1e-3 * sum(x.square().mean() for x in (qa, qb, va, vb))
        loss.backward()
        for p in self.trained.parameters():
            p.grad = None
        return time.perf_counter() - started

    def generate(self, arch, tasks):
        if arch not in self.hypernets:
            self.hypernets[arch] = Hypernet(arch, [(4096, 4096), (4096, 1024)], 32, 1024).eval()
        with torch.no_grad():
            x = torch.ones(tasks, 1024)
            started = time.perf_counter()
            self.hypernets[arch](x)
            return time.perf_counter() - started

    def generate_apart(self, arch, tasks):
        """As the published code does it: task by task, module by module."""
        self.generate(arch, 1)
        net = self.hypernets[arch]
        key = arch + "/apart"
        if key not in self.hypernets:
            parts = []
            for shape in net.modules_:
                parts.append(Hypernet(arch, [shape], 32, 1024).eval())
            self.hypernets[key] = parts
        with torch.no_grad():
            x = torch.ones(1, 1024)
            started = time.perf_counter()
            for _ in range(tasks):
                for part in self.hypernets[key]:
                    part(x)
            return time.perf_counter() - started

    def decode(self, rows, prompt, new):
        if self.hf is None:
            from transformers import LlamaConfig, LlamaForCausalLM

            config = LlamaConfig(
                vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                num_key_value_heads=3, rms_norm_eps=1e-5, max_position_embeddings=8192, tie_word_embeddings=True,
                bos_token_id=1, eos_token_id=None, pad_token_id=0,
            )
            config.rope_theta = 100000.0
            self.hf = LlamaForCausalLM(config).float().eval()
        ids = torch.tensor([[(t * 37 + r * 101) % 49000 for t in range(prompt)] for r in range(rows)])
        started = time.perf_counter()
        with torch.no_grad():
            self.hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, do_sample=False)
        return time.perf_counter() - started


class LlamaCpp:
    def __init__(self, model):
        from llama_cpp import Llama as Native

        self.native = Native(model, n_ctx=1024, n_threads=os.cpu_count(), verbose=False)

    def decode(self, prompt, new):
        ids = [(t * 37) % 49000 for t in range(prompt)]
        self.native.reset()
        started = time.perf_counter()
        self.native.eval(ids)
        token = int(self.native._scores[-1].argmax()) if new > 1 and self.native._logits_all else 5
        for _ in range(new - 1):
            self.native.eval([token])
        return time.perf_counter() - started


class Worker:
    def __init__(self, path):
        env = {**os.environ, "T2L_COMPARE": "1"}
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def __call__(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"the worker failed at: {line}")
        return float(answer)


def fetched(t2l):
    """Where t2l keeps the model."""
    return subprocess.run([t2l, "models", "path", "smollm2-135m-instruct"], check=True, capture_output=True, text=True).stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="sft,generate,decode")
    parser.add_argument("--model", help="SmolLM2-135M-Instruct as GGUF; else t2l is asked")
    parser.add_argument("--t2l", default="t2l", help="the program to ask")
    args = parser.parse_args()
    model = lambda: args.model or fetched(args.t2l)
    ours, peer = Worker(args.worker), Peer(model)
    only = args.only.split(",")
    pairs = []
    if "sft" in only:
        pairs.append(("SFT step, 8 x 128 tokens", lambda: ours("sft 8 128"), lambda: peer.sft(8, 128)))
    if "sft-bf16" in only:
        # On processors with AVX512-BF16.
        pairs.append(("SFT step, products in bf16, PyTorch in f32", lambda: ours("sft-bf16 8 128"), lambda: peer.sft(8, 128)))
        pairs.append(("SFT step, products in bf16, PyTorch under bf16 autocast", lambda: ours("sft-bf16 8 128"), lambda: peer.sft(8, 128, True)))
    if "generate" in only:
        for arch in "LMS":
            pairs.append((f"{arch}, 8 tasks, PyTorch batched", lambda a=arch: ours(f"generate {a} 8"), lambda a=arch: peer.generate(a, 8)))
            pairs.append((f"{arch}, 8 tasks, PyTorch apart", lambda a=arch: ours(f"generate {a} 8"), lambda a=arch: peer.generate_apart(a, 8)))
    if "decode" in only:
        for rows in (1, 8):
            pairs.append((f"prefill 512, batch {rows}", lambda r=rows: ours(f"decode {r} 512 1"), lambda r=rows: peer.decode(r, 512, 1)))
            pairs.append((f"prefill 16 + 32 tokens, batch {rows}", lambda r=rows: ours(f"decode {r} 16 32"), lambda r=rows: peer.decode(r, 16, 32)))
    native = None
    if "llama.cpp" in only:
        native = LlamaCpp(model())
        pairs.append(("prefill 512, batch 1, llama.cpp Q4_1", lambda: ours("decode 1 512 1"), lambda: native.decode(512, 1)))
        pairs.append(("prefill 16 + 32 tokens, llama.cpp Q4_1", lambda: ours("decode 1 16 32"), lambda: native.decode(16, 32)))
    results = []
    print("| work | ours, s | peer, s | ours / peer | range |\n|---|---|---|---|---|")
    for name, a, b in pairs:
        a(), b()
        rounds = [(a(), b()) for _ in range(args.rounds)]
        ratios = sorted(x / y for x, y in rounds)
        median = statistics.median
        row = dict(work=name, ours=median(x for x, _ in rounds), peer=median(y for _, y in rounds), ratio=median(ratios), low=ratios[0], high=ratios[-1])
        results.append(row)
        print(f"| {name} | {row['ours']:.3f} | {row['peer']:.3f} | {row['ratio']:.2f} | {row['low']:.2f}–{row['high']:.2f} |", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory: ours {ours('memory'):.0f} MB, peer {peak:.0f} MB; torch {torch.__version__}, {os.cpu_count()} cores")
    print(json.dumps(results), file=sys.stderr)


if __name__ == "__main__":
    main()
