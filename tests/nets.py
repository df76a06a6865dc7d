"""Tiny networks, each one mechanism of rewriting. `ALL` holds one of every class that converts.

Every network has a float stem and a float head for the rules to keep, and between them layers of 256 weights and more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from binarize.rules.files import builtin_rule_sets

__all__ = ["ALL", "Net", "conv", "example", "pictures", "seeded"]


@cache
def _photographs() -> Tensor:
    from sklearn.datasets import load_sample_images

    stacked = torch.stack([torch.from_numpy(image.copy()) for image in load_sample_images().images])
    return stacked.permute(0, 3, 1, 2).float() / 255


def pictures(n: int = 4, size: int = 16, channels: int = 3) -> Tensor:
    """(n, channels, size, size): n different pieces of two photographs, normalized."""
    photos = F.interpolate(_photographs(), (2 * size, 3 * size), mode="bilinear", antialias=True)
    pieces = [
        photos[i, :, a : a + size, b : b + size]
        for a in (0, size)
        for b in (0, size, 2 * size)
        for i in (0, 1)
    ]
    chosen = torch.stack([pieces[i % len(pieces)] for i in range(n)])
    return ((chosen - 0.45) / 0.225).repeat(1, -(-channels // 3), 1, 1)[:, :channels].contiguous()


def conv(inputs: int = 16, outputs: int = 16, kernel: int = 3, **options: Any) -> nn.Conv2d:
    """A convolution without bias that keeps the image's size at stride 1."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **options)


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The network with weights of that seed, in evaluation mode, its norms with the statistics of a few pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        if isinstance(model, Net):
            norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
            for norm in norms:
                norm.momentum = 1.0
            with torch.no_grad():
                model.train()(*model.arguments(), **model.keywords())
            for norm in norms:
                norm.momentum = 0.1
    return model.eval()


def example(model: nn.Module, n: int = 4) -> Any:
    """What `example_input` takes for one of these networks: a tuple of arguments, or a dict of keywords."""
    assert isinstance(model, Net)
    return model.keywords(n) or model.arguments(n)


class Net(nn.Module):
    """A network that knows what its forward takes."""

    def arguments(self, n: int = 4) -> tuple[Any, ...]:
        """Positional arguments for a batch of n."""
        return (pictures(n),)

    def keywords(self, n: int = 4) -> dict[str, Any]:
        """Keyword arguments for a batch of n."""
        return {}


class Head(nn.Module):
    """Mean over the image and a linear layer."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


class Body(Net):
    """stem, `run`, head: subclasses write what stands between."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.head = Head(channels)

    def run(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.run(self.stem(x)))


# --- chains


class ConvRelu(Net):
    """A small VGG: no norm, in-place ReLU modules, pools, linear layers with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(4),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Linear(128, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 32), nn.ReLU(True), nn.Dropout(),
            nn.Linear(32, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class ConvBnRelu(Net):
    """conv-bn-relu as one Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True),
            conv(), nn.BatchNorm2d(16), nn.ReLU(inplace=True),
            conv(), nn.BatchNorm2d(16), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.head = Head()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x))


class FunctionalRelu(Body):
    """The activations are functions, one of them in place."""

    def __init__(self) -> None:
        super().__init__()
        self.bn0, self.bn1, self.bn2 = (nn.BatchNorm2d(16) for _ in range(3))
        self.conv1, self.conv2 = conv(), conv()

    def run(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn0(x))
        x = F.relu_(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x)).relu()


class SharedRelu(Body):
    """One in-place ReLU module at three call sites."""

    def __init__(self) -> None:
        super().__init__()
        self.bn0, self.bn1, self.bn2 = (nn.BatchNorm2d(16) for _ in range(3))
        self.conv1, self.conv2 = conv(), conv()
        self.relu = nn.ReLU(inplace=True)

    def run(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn0(x))
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)))


class FunctionalNorm(Body):
    """F.batch_norm with the module's own training flag, so the norm is no module that anybody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.conv1, self.conv2 = nn.BatchNorm2d(16), conv(), conv()

    def run(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(F.relu(x)))
        bn = self.bn
        x = self.conv2(x)
        return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, self.training)


class ConvReluPool(Body):
    def __init__(self) -> None:
        super().__init__(32)
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(2),
            conv(32, 32),
        )

    def run(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ConvPoolBn(Body):
    """The norm stands behind the pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.ReLU(), conv(), nn.MaxPool2d(2), nn.BatchNorm2d(16), nn.ReLU(), conv())

    def run(self, x: Tensor) -> Tensor:
        return self.layers(x)


class FunctionalDropout(Body):
    """Dropout as a function of the module's training flag."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(), conv()

    def run(self, x: Tensor) -> Tensor:
        x = F.dropout(F.relu(x), 0.3, self.training)
        x = F.relu(self.conv1(x))
        return self.conv2(F.dropout2d(x, p=0.3, training=self.training))


class Silu(Body):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(16), nn.SiLU(), conv(), nn.BatchNorm2d(16), nn.GELU(), conv()
        )

    def run(self, x: Tensor) -> Tensor:
        return self.layers(x)


class FeedsFloat(Body):
    """A ReLU read by a convolution to binarize and by a depthwise one that stays float."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.relu = nn.BatchNorm2d(16), nn.ReLU()
        self.conv1, self.depthwise, self.conv2 = conv(), conv(groups=16), conv()

    def run(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(x))
        return self.conv2(torch.cat([self.conv1(x), self.depthwise(x)], 1)[:, ::2])


# --- residual, dense, gated


class PreActivationBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn1, self.conv1, self.bn2, self.conv2 = nn.BatchNorm2d(16), conv(), nn.BatchNorm2d(16), conv()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.bn1(x)))
        return x + self.conv2(F.relu(self.bn2(y)))


class PreActivation(Body):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(PreActivationBlock(), PreActivationBlock())
        self.norm = nn.BatchNorm2d(16)

    def run(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.blocks(x)))


class BasicBlock(nn.Module):
    """The projection is computed after the branch; the add is in place, and so is the one shared ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride=stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class BasicBlocks(Body):
    def __init__(self) -> None:
        super().__init__(32)
        self.bn, self.relu = nn.BatchNorm2d(16), nn.ReLU(inplace=True)
        self.blocks = nn.Sequential(BasicBlock(16, 16, 1), BasicBlock(16, 32, 2))

    def run(self, x: Tensor) -> Tensor:
        return self.blocks(self.relu(self.bn(x)))


class Bottleneck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(32, 16, 1), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = conv(16, 16), nn.BatchNorm2d(16)
        self.conv3, self.bn3 = conv(16, 32, 1), nn.BatchNorm2d(32)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + x)


class Bottlenecks(Body):
    def __init__(self) -> None:
        super().__init__(32)
        self.widen = nn.Sequential(nn.ReLU(), conv(16, 32, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.blocks = nn.Sequential(Bottleneck(), Bottleneck())

    def run(self, x: Tensor) -> Tensor:
        return self.blocks(self.widen(x))


class Dense(Body):
    """Each layer reads all before it, joined; norm and ReLU come first."""

    def __init__(self) -> None:
        super().__init__(48)
        self.norms = nn.ModuleList(nn.BatchNorm2d(16 * (i + 1)) for i in range(2))
        self.convs = nn.ModuleList(conv(16 * (i + 1), 16) for i in range(2))

    def run(self, x: Tensor) -> Tensor:
        features = [x]
        for norm, layer in zip(self.norms, self.convs):
            features.append(layer(F.relu(norm(torch.cat(features, 1)))))
        return F.relu(torch.cat(features, 1))


class SqueezeExcite(Body):
    """A gate of one number a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2 = conv(), nn.BatchNorm2d(16), conv()
        self.reduce, self.expand = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 16, 1)

    def run(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(F.relu(x))))
        gate = torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
        return self.conv2(x * gate)


class DropPath(nn.Module):
    """Drops whole samples in training; its code differs between the modes."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(0.8)


class StochasticBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = conv(), nn.BatchNorm2d(16), conv(), nn.BatchNorm2d(16)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(x + self.drop_path(y))


class StochasticDepth(Body):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(StochasticBlock(), StochasticBlock())

    def run(self, x: Tensor) -> Tensor:
        return self.blocks(F.relu(x))


class NormActivation(Body):
    """timm's BatchNorm that applies its activation itself."""

    def __init__(self) -> None:
        super().__init__()
        from timm.layers import BatchNormAct2d

        self.conv1, self.bn1, self.conv2, self.bn2 = conv(), BatchNormAct2d(16), conv(), BatchNormAct2d(16)

    def run(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(F.relu(x)))))


# --- linear layers and other dimensions


class Mlp(Net):
    """Linear-relu-dropout on vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(768, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 32), nn.ReLU(),
            nn.Dropout(0.2), nn.Linear(32, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Tokens(Net):
    """A transformer's MLP block on (N, T, C), once with GELU, once with ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 4, 4)
        self.norm1, self.norm2, self.norm = (nn.LayerNorm(16) for _ in range(3))
        self.mlp1 = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.mlp2 = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = x + self.mlp1(self.norm1(x))
        x = x + self.mlp2(self.norm2(x))
        return self.fc(self.norm(x).mean(1))


class Encoder(Net):
    """Torch's own transformer encoder, whose layers have a way past their parts."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 10)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def tokens(self, x: Tensor) -> Tensor:
        """(N, T, C)."""
        return self.embed(x).flatten(2).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.tokens(x)).mean(1))


class Signal(Net):
    """One spatial axis."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv1d(16, 16, 5, 2, padding=2), nn.BatchNorm1d(16), nn.ReLU(),
            nn.Conv1d(16, 32, 3, padding=1), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 10),
        )  # fmt: skip

    def arguments(self, n: int = 4) -> tuple[Any, ...]:
        return (pictures(n).flatten(2),)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Video(Net):
    """Three spatial axes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(3, 16, 3, padding=1), nn.BatchNorm3d(16), nn.ReLU(), nn.Conv3d(16, 16, 3, 2, 1),
            nn.BatchNorm3d(16), nn.ReLU(), nn.Conv3d(16, 32, (1, 3, 3), padding=(0, 1, 1)), nn.AdaptiveAvgPool3d(1),
            nn.Flatten(), nn.Linear(32, 10),
        )  # fmt: skip

    def arguments(self, n: int = 4) -> tuple[Any, ...]:
        return (torch.stack([pictures(n, 8), pictures(n, 9)[..., 1:, 1:]], 2),)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Decoder(Body):
    """Down by a stride and up again by a transposed convolution, joined with what came before."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = conv(16, 32, stride=2), nn.ConvTranspose2d(32, 16, 2, 2)
        self.bn1, self.bn2, self.join = nn.BatchNorm2d(32), nn.BatchNorm2d(16), conv(32, 16)

    def run(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        y = F.relu(self.bn2(self.up(F.relu(self.bn1(self.down(x))))))
        return self.join(torch.cat([x, y], 1))


class Geometry(Body):
    """Dilation, groups, "same" and reflected padding, uneven kernels, biases."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), nn.Conv2d(16, 16, 3, padding="same", dilation=2), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=4, padding=1),
            nn.ReLU(), nn.Conv2d(16, 16, (1, 5), padding=(0, 2), padding_mode="reflect"), nn.ReLU(),
            nn.Conv2d(16, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(),
            nn.Conv2d(24, 16, 2, padding="same"),
        )  # fmt: skip

    def run(self, x: Tensor) -> Tensor:
        return self.layers(x)


# --- weights that are not a layer's own alone


class CalledTwice(Body):
    """One convolution at two call sites, a norm of its own behind each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn1, self.bn2, self.other = conv(), nn.BatchNorm2d(16), nn.BatchNorm2d(16), conv()

    def run(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv(F.relu(x))))
        return self.other(F.relu(self.bn2(self.conv(x))))


class TwoNames(Body):
    """One module registered under two names and called under both."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv()
        self.conv2 = self.conv1

    def run(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(F.relu(x))))


class Tied(Body):
    """Two layers with one weight, and a third with its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = conv(), conv(), conv()
        self.conv2.weight = self.conv1.weight

    def run(self, x: Tensor) -> Tensor:
        return self.conv3(F.relu(self.conv2(F.relu(self.conv1(F.relu(x))))))


class _Symmetric(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return (w + w.flip(-1)) / 2


class Parametrized(Body):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = conv(), conv(), conv()
        parametrize.register_parametrization(self.conv1, "weight", _Symmetric())
        with torch.no_grad():
            self.conv3 = torch.nn.utils.spectral_norm(self.conv3)

    def run(self, x: Tensor) -> Tensor:
        return self.conv3(F.relu(self.conv2(F.relu(self.conv1(F.relu(x))))))


class StandardizedConv(nn.Conv2d):
    """A subclass with mathematics of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


class NamedConv(nn.Conv2d):
    """A subclass that only adds an attribute."""

    label = "named"


class Subclasses(Body):
    def __init__(self) -> None:
        super().__init__()
        self.standardized = StandardizedConv(16, 16, 3, padding=1)
        self.named = NamedConv(16, 16, 3, padding=1)

    def run(self, x: Tensor) -> Tensor:
        return self.named(F.relu(self.standardized(F.relu(x))))


class FunctionalConv(Body):
    """A layer that is a function and a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.randn(16, 16, 3, 3) * 0.1)
        self.conv1 = conv()

    def run(self, x: Tensor) -> Tensor:
        return self.conv1(F.relu(F.conv2d(F.relu(x), self.filters, padding=1)))


# --- inputs, outputs, control flow


class TwoHeads(Body):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.boxes = conv(), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x = F.relu(self.conv1(F.relu(self.stem(x))))
        return self.head(x), self.boxes(x.mean((2, 3)))


class AuxiliaryHead(Body):
    """A second head that runs in training mode only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.aux_conv, self.aux, self.conv2 = conv(), conv(), Head(), conv()

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.conv1(F.relu(self.stem(x))))
        aux = self.aux(F.relu(self.aux_conv(x))) if self.training else None
        out = self.head(self.conv2(x))
        return out if aux is None else (out, aux)


class Keywords(Body):
    """A dictionary in, an optional argument that is never given, a dictionary out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(), conv()

    def arguments(self, n: int = 4) -> tuple[Any, ...]:
        return ()

    def keywords(self, n: int = 4) -> dict[str, Any]:
        return {"inputs": {"left": pictures(n), "right": pictures(n).flip(-1)}, "scale": 0.5}

    def forward(
        self, inputs: dict[str, Tensor], scale: float, mask: Tensor | None = None
    ) -> dict[str, Tensor]:  # type: ignore[override]
        x = self.stem(inputs["left"]) + scale * self.stem(inputs["right"])
        x = F.relu(self.conv1(F.relu(x)))
        if mask is not None:
            x = x * mask
        return {"scores": self.head(self.conv2(x))}


class Features(Body):
    """forward in two methods that one may call on their own, with functional ReLUs in the first."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
        self.conv1, self.conv2, self.conv3 = conv(), conv(), conv()

    def forward_features(self, x: Tensor, scale: float = 1.0, **options: Any) -> Tensor:
        x = F.relu(self.stem(x)) * scale
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.conv3(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


@dataclass
class Answer:
    scores: Tensor
    features: Tensor


class Structured(Body):
    """A tuple in, a dataclass out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(), conv()

    def arguments(self, n: int = 4) -> tuple[Any, ...]:
        return ((pictures(n), pictures(n).flip(-1)),)

    def forward(self, pair: tuple[Tensor, Tensor]) -> Answer:  # type: ignore[override]
        left, right = pair
        features = self.conv2(F.relu(self.conv1(F.relu(self.stem(left) - self.stem(right)))))
        return Answer(self.head(F.relu(features)), features)


class DataDependent(Body):
    """What runs depends on the values: no symbolic trace, and no run without data."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.conv1 = BasicBlock(16, 16, 1), conv()

    def run(self, x: Tensor) -> Tensor:
        x = self.block(F.relu(x))
        if x.mean() > -1e9:
            x = self.conv1(F.relu(x))
        return x


class ShapeDependent(Body):
    """A container whose code branches on a shape and has a functional ReLU between its layers."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = conv(), conv()

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-1] % 2:
                x = F.pad(x, (0, 1))
            return x + self.conv2(F.relu(self.conv1(F.relu(x))))

    def __init__(self) -> None:
        super().__init__()
        self.block = self.Block()

    def run(self, x: Tensor) -> Tensor:
        return self.block(x)


ALL: dict[str, type[Net]] = {
    cls.__name__: cls
    for cls in (
        ConvRelu, ConvBnRelu, FunctionalRelu, SharedRelu, FunctionalNorm, ConvReluPool, ConvPoolBn, FunctionalDropout, Silu,
        FeedsFloat, PreActivation, BasicBlocks, Bottlenecks, Dense, SqueezeExcite, StochasticDepth, NormActivation, Mlp,
        Tokens, Encoder, Signal, Video, Decoder, Geometry, CalledTwice, TwoNames, Tied, Parametrized, Subclasses,
        FunctionalConv, TwoHeads, AuxiliaryHead, Keywords, Features, Structured, DataDependent, ShapeDependent,
    )
}  # fmt: skip

# Schemes whose layers have a packed form. The inputs of the others depend on their sample; random signs are hardened first.
_UNPACKED = ("bitnet", "naive-bernoulli", "realtobinary", "tang")
PACKABLE = [name for name in builtin_rule_sets() if name not in _UNPACKED]
