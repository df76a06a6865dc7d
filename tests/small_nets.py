"""Nets of the kinds that small devices run, each with the shapes of what it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["NETS", "Net", "inputs_of"]

# Shapes of one sample's inputs without the batch, None where these are words, and what makes the net.
Net = tuple["tuple[tuple[int, ...], ...] | None", Callable[[], nn.Module]]
WORDS, LENGTH = 40, 12


def inputs_of(name: str, batch: int) -> tuple[Tensor, ...]:
    """Noise for a net of `NETS`."""
    shapes = NETS[name][0]
    if shapes is None:
        return (torch.randint(0, WORDS, (batch, LENGTH)),)
    return tuple(torch.randn(batch, *shape) for shape in shapes)


class Of(nn.Module):
    """A net of named parts and a function of them and the inputs."""

    def __init__(self, run: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(self, *inputs)


def cbr(
    i: int, o: int, k: int = 3, s: int = 1, groups: int = 1, act: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, k, s, k // 2, groups=groups, bias=False), nn.BatchNorm2d(o), act())


def line(i: int, o: int, k: int, s: int = 1, **options: Any) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(i, o, k, s, k // 2, bias=False, **options), nn.BatchNorm1d(o), nn.ReLU())


def head(i: int, classes: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(i, classes))


def separable(i: int, o: int, s: int = 1) -> nn.Sequential:
    return nn.Sequential(cbr(i, i, 3, s, groups=i), cbr(i, o, 1))


class Block(nn.Module):
    """A residual block; a gate of its channels where `gate` says which."""

    def __init__(self, i: int, o: int, s: int = 1, gate: str = "") -> None:
        super().__init__()
        self.a, self.b = cbr(i, o, 3, s), nn.Sequential(nn.Conv2d(o, o, 3, padding=1), nn.BatchNorm2d(o))
        self.skip = (
            nn.Sequential(nn.Conv2d(i, o, 1, s), nn.BatchNorm2d(o)) if i != o or s > 1 else nn.Identity()
        )
        self.gate = gate
        if gate:
            self.down, self.up = nn.Conv2d(o, o // 4, 1), nn.Conv2d(o // 4, o, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x))
        if self.gate:
            z = self.up(F.relu(self.down(F.adaptive_avg_pool2d(y, 1))))
            y = y * (torch.sigmoid(z) if self.gate == "sigmoid" else F.hardsigmoid(z)).expand_as(y)
        return F.relu(y + self.skip(x))


class Shuffle(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            cbr(c // 2, c // 2, 1), cbr(c // 2, c // 2, 3, groups=c // 2), cbr(c // 2, c // 2, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        y = torch.cat((a, self.branch(b)), 1)
        n, c, h, w = y.size()
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


class Ghost(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.o, self.first, self.cheap = (
            o,
            cbr(i, o // 2 + 1, 1),
            cbr(o // 2 + 1, o // 2 + 1, 3, groups=o // 2 + 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return torch.cat([y, self.cheap(y)], 1)[:, : self.o]


class Temporal(nn.Module):
    """A causal block of dilated convolutions over time."""

    def __init__(self, c: int, dilation: int) -> None:
        super().__init__()
        self.pad, self.conv, self.norm = (
            2 * dilation,
            nn.Conv1d(c, c, 3, dilation=dilation),
            nn.GroupNorm(1, c),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + F.gelu(self.norm(self.conv(F.pad(x, (self.pad, 0)))))


class Attention(nn.Module):
    """A block of a small transformer, pre-norm."""

    def __init__(self, d: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-2, -1) * (d // self.heads) ** -0.5).softmax(dim=-1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(b, n, d))
        return x + self.mlp(self.norm2(x))


class Vision(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.patch, self.blocks = (
            nn.Conv2d(3, 32, 4, 4),
            nn.Sequential(*(Attention(32, 4, fused) for _ in range(2))),
        )
        self.token, self.place = (
            nn.Parameter(torch.zeros(1, 1, 32)),
            nn.Parameter(torch.randn(1, 17, 32) * 0.1),
        )
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x).flatten(2).transpose(1, 2)
        y = torch.cat((self.token.expand(x.shape[0], -1, -1), y), dim=1) + self.place
        return self.head(self.norm(self.blocks(y))[:, 0])


class Mixer(nn.Module):
    def __init__(self, n: int, d: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.tokens = nn.Sequential(nn.Linear(n, 2 * n), nn.GELU(), nn.Linear(2 * n, n))
        self.channels = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class UNet(nn.Module):
    def __init__(self, up: str) -> None:
        super().__init__()
        self.d1, self.d2, self.mid = cbr(3, 16), cbr(16, 32), cbr(32, 32)
        self.up = (
            nn.ConvTranspose2d(32, 32, 2, 2) if up == "transposed" else nn.Upsample(scale_factor=2, mode=up)
        )
        self.u, self.out = cbr(64, 16), nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.d2(self.d1(x))
        y = self.up(self.mid(F.max_pool2d(a, 2)))
        y = F.pad(y, [0, a.shape[3] - y.shape[3], 0, a.shape[2] - y.shape[2]])
        return self.out(self.u(torch.cat([a, y], dim=1)))


class Pose(nn.Module):
    """Key points as the mean place of a softmax over heat maps."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.maps = nn.Sequential(cbr(3, 16, 3, 2), cbr(16, 32), cbr(32, 32)), nn.Conv2d(32, 4, 1)
        self.register_buffer("line", torch.linspace(-1, 1, 8))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.maps(self.body(x))
        n, k, h, w = maps.shape
        shares = maps.view(n, k, -1).softmax(-1).view(n, k, h, w)
        xs, ys = (shares.sum(2) * self.line).sum(-1), (shares.sum(3) * self.line).sum(-1)
        return {"points": torch.stack([xs, ys], -1), "score": maps.amax(dim=(2, 3)).sigmoid()}


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            cbr(3, 16, 3, 2, act=nn.Hardswish), cbr(16, 32, 3, 2, act=nn.SiLU), cbr(32, 32)
        )
        self.boxes, self.classes = nn.Conv2d(32, 8, 1), nn.Conv2d(32, 6, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        y = self.body(x)
        boxes = self.boxes(y).permute(0, 2, 3, 1).reshape(y.size(0), -1, 4)
        scores = self.classes(y).permute(0, 2, 3, 1).reshape(y.size(0), -1, 3)
        return torch.cat([boxes[..., :2].sigmoid(), boxes[..., 2:].exp()], -1), [scores.softmax(-1)]


class Fire(nn.Module):
    def __init__(self, i: int, s: int, o: int) -> None:
        super().__init__()
        self.squeeze, self.one, self.three = (
            nn.Conv2d(i, s, 1),
            nn.Conv2d(s, o, 1),
            nn.Conv2d(s, o, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.squeeze(x), inplace=True)
        return torch.cat([F.relu(self.one(y)), F.relu(self.three(y))], 1)


class Spatial(nn.Module):
    """Gates over channels and over places (CBAM)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(c, c // 4), nn.ReLU(), nn.Linear(c // 4, c))
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3))))
        x = x * gate.view(*gate.shape, 1, 1)
        places = torch.cat([torch.max(x, 1, keepdim=True)[0], torch.mean(x, 1, keepdim=True)], dim=1)
        return x * self.conv(places).sigmoid()


class Next(nn.Module):
    """A block with channels last (ConvNeXt)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.depth, self.norm = nn.Conv2d(c, c, 7, padding=3, groups=c), nn.LayerNorm(c, eps=1e-6)
        self.a, self.b, self.gamma = nn.Linear(c, 4 * c), nn.Linear(4 * c, c), nn.Parameter(torch.ones(c))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        return x + (self.gamma * self.b(F.gelu(self.a(y)))).permute(0, 3, 1, 2)


class Aspp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = cbr(3, 16, 3, 2), nn.Conv2d(48, 4, 1)
        self.near = nn.Conv2d(16, 16, 3, padding=1)
        self.far, self.whole = nn.Conv2d(16, 16, 3, padding=2, dilation=2), nn.Conv2d(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        whole = F.interpolate(self.whole(y.mean((2, 3), keepdim=True)), size=y.shape[2:], mode="bilinear")
        z = torch.cat([self.near(y), self.far(y), whole], 1).relu()
        return F.interpolate(self.last(z), size=x.shape[-2:], mode="bilinear", align_corners=False).argmax(1)


class Words(nn.Module):
    """A classifier of texts by convolutions of several widths."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, 16)
        self.convs = nn.ModuleList(nn.Conv1d(16, 16, k, padding=1) for k in (2, 3, 4))
        self.mix, self.out = nn.Linear(48, 32), nn.Linear(32, 3)

    def forward(self, words: Tensor) -> Tensor:
        x = self.table(words).transpose(1, 2)
        pooled = [F.relu(conv(x)).max(dim=2).values for conv in self.convs]
        return F.log_softmax(self.out(F.relu(self.mix(torch.cat(pooled, 1)))), dim=1)


def autoencoder() -> nn.Module:
    down = nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 3, 2, 1), nn.LeakyReLU(0.2)
    )
    up = [
        nn.ConvTranspose2d(32, 16, 3, 2, 1, output_padding=1),
        nn.ELU(),
        nn.ConvTranspose2d(16, 1, 4, 2, 1),
        nn.Tanh(),
    ]
    return nn.Sequential(down, *up)


def espcn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.Tanh(), nn.Conv2d(32, 32, 3, padding=1), nn.Tanh(),
        nn.Conv2d(32, 4, 3, padding=1), nn.PixelShuffle(2), nn.Sigmoid(),
    )  # fmt: skip


def fsrcnn() -> nn.Module:
    middle = [layer for _ in range(2) for layer in (nn.Conv2d(16, 16, 3, padding=1), nn.PReLU(16))]
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.PReLU(32), nn.Conv2d(32, 16, 1), nn.PReLU(16), *middle,
        nn.Conv2d(16, 32, 1), nn.PReLU(32), nn.ConvTranspose2d(32, 1, 9, 2, 4, output_padding=1),
    )  # fmt: skip


def style() -> nn.Module:
    """Reflected borders and norms of each image."""

    def block() -> nn.Module:
        conv = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(32, 32, 3), nn.InstanceNorm2d(32, affine=True))
        return Of(lambda s, x: x + s.conv(x), conv=conv)

    first = [nn.ReflectionPad2d(2), nn.Conv2d(3, 32, 5), nn.InstanceNorm2d(32), nn.ReLU()]
    last = [nn.Upsample(scale_factor=2), nn.ReplicationPad2d(1), nn.Conv2d(32, 3, 3), nn.Tanh()]
    return nn.Sequential(*first, nn.MaxPool2d(2), block(), block(), *last)


def edsr() -> nn.Module:
    body = Of(
        lambda s, x: x + s.b(F.relu(s.a(x))) * 0.1,
        a=nn.Conv2d(24, 24, 3, padding=1),
        b=nn.Conv2d(24, 24, 3, padding=1),
    )
    mean = torch.tensor([0.4, 0.45, 0.5]).view(1, 3, 1, 1)
    return Of(
        lambda s, x: (s.tail(s.up(s.body(s.head(x - mean)))) + mean) / 1.5 + F.interpolate(x, None, 2, "bicubic"),
        head=nn.Conv2d(3, 24, 3, padding=1), body=body, up=nn.Sequential(nn.Conv2d(24, 96, 3, padding=1), nn.PixelShuffle(2)),
        tail=nn.Conv2d(24, 3, 3, padding=1),
    )  # fmt: skip


def spectrogram() -> nn.Module:
    """Log energies of frames of a signal, then convolutions over time."""
    window = torch.hann_window(16)
    return Of(
        lambda s, x: s.net(((x.unfold(-1, 16, 8) * window) ** 2 + 1e-3).log().squeeze(1).transpose(1, 2)),
        net=nn.Sequential(
            line(16, 32, 3), line(32, 32, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 4)
        ),
    )


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
    return Of(
        lambda s, x: s.out(s.body(s.into(x)).mean(1)), into=nn.Linear(8, 32), body=layer, out=nn.Linear(32, 3)
    )


NETS: dict[str, Net] = {
    "DS-CNN": (
        ((1, 20, 10),),
        lambda: nn.Sequential(
            cbr(1, 24, 5, 2), *(separable(24, 24) for _ in range(3)), nn.Dropout(0.2), head(24)
        ),
    ),
    "TC-ResNet": (
        ((16, 24),),
        lambda: nn.Sequential(
            line(16, 24, 3),
            Of(
                lambda s, x: F.relu(s.b(s.a(x)) + s.c(x)),
                a=line(24, 32, 9, 2),
                b=nn.Conv1d(32, 32, 9, padding=4),
                c=nn.Conv1d(24, 32, 1, 2),
            ),
            nn.AvgPool1d(12),
            nn.Flatten(),
            nn.Linear(32, 4),
        ),
    ),
    "M5": (
        ((1, 256),),
        lambda: nn.Sequential(
            line(1, 16, 9, 4),
            nn.MaxPool1d(2),
            line(16, 32, 3),
            nn.MaxPool1d(2),
            line(32, 32, 3),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(32, 4),
            nn.LogSoftmax(1),
        ),
    ),
    "audio CNN": (
        ((1, 20, 16),),
        lambda: nn.Sequential(
            cbr(1, 16),
            nn.MaxPool2d(2),
            cbr(16, 32, act=nn.ELU),
            nn.MaxPool2d(2),
            cbr(32, 32),
            Of(lambda s, x: x.mean(3).max(2)[0] + x.mean((2, 3))),
            nn.Linear(32, 4),
            nn.Softmax(1),
        ),
    ),
    "dilated": (
        ((8, 32),),
        lambda: nn.Sequential(
            nn.Conv1d(8, 24, 1),
            Temporal(24, 1),
            Temporal(24, 2),
            Temporal(24, 4),
            nn.Conv1d(24, 2, 1),
            Of(lambda s, x: torch.tanh(x[:, :1]) * torch.sigmoid(x[:, 1:])),
        ),
    ),
    "spectrogram": (((1, 128),), spectrogram),
    "ESPCN": (((1, 9, 8),), espcn),
    "FSRCNN": (((1, 9, 8),), fsrcnn),
    "EDSR": (((3, 8, 8),), edsr),
    "U-Net, transposed": (((3, 14, 15),), lambda: UNet("transposed")),
    "U-Net, bilinear": (((3, 14, 15),), lambda: UNet("bilinear")),
    "U-Net, nearest": (((3, 16, 16),), lambda: UNet("nearest")),
    "ASPP": (((3, 16, 16),), Aspp),
    "pose": (((3, 16, 16),), Pose),
    "detector": (((3, 16, 16),), Detector),
    "autoencoder": (((1, 16, 16),), autoencoder),
    "squeeze-excite": (
        ((3, 16, 16),),
        lambda: nn.Sequential(cbr(3, 16), Block(16, 32, 2, "sigmoid"), Block(32, 32, 1, "hard"), head(32)),
    ),
    "ResNet": (((3, 16, 16),), lambda: nn.Sequential(cbr(3, 16), Block(16, 16), Block(16, 32, 2), head(32))),
    "CBAM": (
        ((3, 16, 16),),
        lambda: nn.Sequential(cbr(3, 16), cbr(16, 32), Spatial(32), cbr(32, 32), head(32)),
    ),
    "ShuffleNet": (
        ((3, 16, 16),),
        lambda: nn.Sequential(cbr(3, 32, 3, 2), Shuffle(32), Shuffle(32), cbr(32, 48, 1), head(48)),
    ),
    "GhostNet": (
        ((3, 16, 16),),
        lambda: nn.Sequential(
            cbr(3, 16), Ghost(16, 24), nn.MaxPool2d(2), Ghost(24, 31), cbr(31, 32), head(32)
        ),
    ),
    "SqueezeNet": (
        ((3, 16, 16),),
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3, 2),
            nn.ReLU(),
            Fire(16, 8, 16),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(32, 8, 16),
            nn.Conv2d(32, 5, 1),
            Of(lambda s, x: x.mean([-2, -1])),
        ),
    ),
    "MobileNet": (
        ((3, 16, 16),),
        lambda: nn.Sequential(
            cbr(3, 16, 3, 2, act=nn.Hardswish),
            cbr(16, 48, 1, act=nn.Hardswish),
            cbr(48, 48, 3, groups=48, act=nn.ReLU6),
            cbr(48, 24, 1, act=nn.SiLU),
            nn.Conv2d(24, 32, 3),
            head(32),
        ),
    ),
    "ConvNeXt": (((3, 16, 16),), lambda: nn.Sequential(nn.Conv2d(3, 16, 4, 4), Next(16), Next(16), head(16))),
    "VGG": (
        ((3, 16, 16),),
        lambda: nn.Sequential(
            cbr(3, 16),
            cbr(16, 32),
            nn.MaxPool2d(2),
            cbr(32, 32),
            nn.AdaptiveAvgPool2d((3, 3)),
            nn.Flatten(),
            nn.Linear(288, 32),
            nn.ReLU(True),
            nn.Dropout(),
            nn.Linear(32, 5),
        ),
    ),
    "style": (((3, 16, 16),), style),
    "Vision Transformer": (((3, 16, 16),), lambda: Vision(fused=False)),
    "Vision Transformer, fused": (((3, 16, 16),), lambda: Vision(fused=True)),
    "TransformerEncoder": (((12, 8),), transformer),
    "MLP-Mixer": (
        ((3, 16, 16),),
        lambda: Of(
            lambda s, x: s.out(s.mix(s.patch(x).flatten(2).transpose(1, 2)).mean(1)),
            patch=nn.Conv2d(3, 24, 4, 4),
            mix=Mixer(16, 24),
            out=nn.Linear(24, 5),
        ),
    ),
    "two inputs": (
        ((16, 12), (6,)),
        lambda: Of(
            lambda s, x, extra: {
                "class": s.out(torch.cat([s.body(x).mean(2), s.side(extra)], 1)),
                "sum": extra.sum(1),
            },
            body=nn.Sequential(line(16, 32, 3), line(32, 32, 3)),
            side=nn.Linear(6, 32),
            out=nn.Linear(64, 3),
        ),
    ),
    "siamese": (
        ((1, 12, 12), (1, 12, 12)),
        lambda: Of(
            lambda s, a, b: F.cosine_similarity(s.body(a).flatten(1), s.body(b).flatten(1)),
            body=nn.Sequential(cbr(1, 16, 3, 2), cbr(16, 32), cbr(32, 32)),
        ),
    ),
    "words": (None, Words),
}
