"""Small models of every kind, in float64, as workloads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from weft.capture import SGD, AdamW, Workload


def generator(seed):
    return torch.Generator().manual_seed(seed)


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(6, 8)
        self.down = nn.Linear(8, 5)

    def forward(self, x):
        return self.down(F.relu(self.up(x)))


class Layer(nn.Module):
    """Attention and MLP in the manner of GPT, or of Llama with `groups` heads sharing keys."""

    def __init__(self, width, heads, groups=1, dropout=0.0, norm=nn.LayerNorm):
        super().__init__()
        self.heads, self.groups = heads, groups
        self.before, self.between = norm(width), norm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width // groups)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, angles=None):
        y = self.before(x)
        q = self.split(self.query(y), self.heads)
        k, v = (self.split(p, self.heads // self.groups) for p in self.key_value(y).chunk(2, -1))
        if angles is not None:
            q, k = turn(q, angles), turn(k, angles)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.groups > 1)
        x = x + self.dropout(self.out(y.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.down(F.gelu(self.up(self.between(x)))))

    def split(self, x, heads):
        return x.unflatten(2, (heads, -1)).transpose(1, 2)


def turn(x, angles):
    a, b = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


class Decoder(nn.Module):
    """Tied or untied head, learned or rotary positions, any number of layers."""

    def __init__(self, num_layers=2, tied=True, rotary=False, **options):
        super().__init__()
        self.tokens = nn.Embedding(11, 8)
        self.layers = nn.ModuleList(Layer(8, 2, **options) for _ in range(num_layers))
        self.norm = options.get("norm", nn.LayerNorm)(8)
        self.head = nn.Linear(8, 11, bias=False)
        if tied:
            self.head.weight = self.tokens.weight
        angles = torch.outer(torch.arange(6.0), torch.tensor([1.0, 0.1]))
        self.register_buffer("angles", angles if rotary else None)

    def forward(self, tokens):
        x = self.tokens(tokens)
        for layer in self.layers:
            x = layer(x, self.angles)
        return self.head(self.norm(x))


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        y = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        return self.head(y.flatten(1))


class Experts(nn.Module):
    """Mixture of experts in the manner of GShard: dispatch and combine by one-hot products."""

    def __init__(self, width=4, num_experts=3, capacity=4):
        super().__init__()
        self.num_experts, self.capacity = num_experts, capacity
        self.gate = nn.Linear(width, num_experts)
        self.up = nn.Parameter(torch.randn(num_experts, width, 2 * width))
        self.down = nn.Parameter(torch.randn(num_experts, 2 * width, width))

    def forward(self, x):
        chance = self.gate(x).softmax(-1)
        chosen = F.one_hot(chance.argmax(-1), self.num_experts).to(x.dtype)
        place = ((chosen.cumsum(1) - 1) * chosen).sum(-1).long()
        column = (place[..., None] == torch.arange(self.capacity)).to(x.dtype)
        combine = (chance * chosen)[..., None] * column[:, :, None]
        sent = torch.einsum("gsec,gsm->egcm", (combine > 0).to(x.dtype), x)
        hidden = torch.einsum("egcm,emh->egch", sent, self.up).relu()
        out = torch.einsum("egch,ehm->egcm", hidden, self.down)
        return torch.einsum("gsec,egcm->gsm", combine, out)


def classify(model, batch):
    return F.cross_entropy(model(batch["x"]), batch["y"])


def predict(model, batch):
    logits = model(batch["tokens"])
    return F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten())


def tokens(step):
    window = torch.randint(11, (4, 7), generator=generator(step))
    return {"tokens": window[:, :-1].contiguous(), "targets": window[:, 1:].contiguous()}


def features(step):
    return {
        "x": torch.randn(5, 6, dtype=torch.float64, generator=generator(step)),
        "y": torch.randint(5, (5,), generator=generator(step)),
    }


def images(step):
    return {
        "x": torch.randn(6, 1, 4, 4, dtype=torch.float64, generator=generator(step)),
        "y": torch.randint(3, (6,), generator=generator(step)),
    }


def groups(step):
    return {"x": torch.randn(2, 5, 4, dtype=torch.float64, generator=generator(step))}


def mlp(optimizer=None):
    return Workload(
        name="mlp",
        model=lambda: MLP().double(),
        loss=classify,
        batch=features,
        optimizer=optimizer or SGD(lr=0.1, momentum=0.9),
    )


def decoder(num_layers=2, compute_dtype=None, dtype=torch.float64, **options):
    return Workload(
        name="decoder",
        model=lambda: Decoder(num_layers, **options).to(dtype),
        loss=predict,
        batch=tokens,
        optimizer=AdamW(lr=1e-2),
        compute_dtype=compute_dtype,
    )


def llama(num_layers=2, **options):
    return decoder(num_layers, tied=False, rotary=True, groups=2, norm=nn.RMSNorm, **options)


def conv_net():
    return Workload(
        name="conv_net",
        model=lambda: ConvNet().double(),
        loss=classify,
        batch=images,
        optimizer=SGD(lr=0.1),
    )


def experts():
    return Workload(
        name="experts",
        model=lambda: Experts().double(),
        loss=lambda model, batch: model(batch["x"]).square().mean(),
        batch=groups,
        optimizer=AdamW(lr=1e-2),
    )
