"""A linear code of blocks of pixels that is fitted to phantoms, and an autoencoder that begins as it.

Principal components of blocks of 8 x 8 pixels keep real tissue better than an autoencoder trained from random weights
for hours on two cores. So the encoder is the linear code, exactly, and stays it: it treats images that nothing was ever
trained on no worse than others. The decoder begins as the best linear one that its layers can be, and is then trained.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

BLOCK = 8  # side of a block in pixels
CONSTANT = 200.0  # fills the groups of normalization so that their deviation does not depend on the image
TAIL_CONSTANT = 30.0
LOG_VARIANCE = -10.0
Code = dict[str, Tensor]


def fit_code(images: Tensor, num_numbers: int) -> Code:
    """Principal components of the blocks of images.

    A number's deviation is the root of what it is in pixels: fine detail weighs more for a denoiser than in pixels,
    where it would be learned last, and less than if all numbers were alike, where it would be all there is to learn.

    Args:
        images: shape (N, 3, H, W), in [0, 1].
        num_numbers: of each block, at most 56.

    Returns:
        `mean` of shape (192,), `components` (num_numbers, 192) and `scale` (num_numbers,) of what is encoded.
    """
    blocks = (F.pixel_unshuffle(images, BLOCK) * 2 - 1).movedim(1, -1).flatten(0, 2)
    mean = blocks.mean(dim=0)
    _, values, components = torch.linalg.svd(blocks - mean, full_matrices=False)
    variance = (values.square() / len(blocks))[:num_numbers]
    scale = variance**-0.25
    scale = scale / (variance * scale.square()).mean().sqrt()
    return {"mean": mean, "components": components[:num_numbers].contiguous(), "scale": scale}


def encode(code: Code, images: Tensor) -> Tensor:
    """Numbers of each block, shape (B, num_numbers, H / 8, W / 8), of images in [0, 1]."""
    blocks = (F.pixel_unshuffle(images, BLOCK) * 2 - 1).movedim(1, -1)
    return ((blocks - code["mean"]) @ code["components"].T * code["scale"]).movedim(-1, 1)


def clear(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with all weights at zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def silence_blocks(module: nn.Module) -> None:
    """Lets the residual blocks pass on what they get."""
    for name, layer in module.named_modules():
        if name.endswith("conv2"):
            clear(layer)


def set_center(layer: nn.Conv2d, weights: Tensor) -> None:
    """Weights of shape (out, in) in the middle of the kernel, for the first channels of a cleared layer."""
    middle = layer.kernel_size[0] // 2
    layer.weight[: weights.shape[0], : weights.shape[1], middle, middle] = weights


def set_fold(layer: nn.Conv2d, channels: int) -> None:
    """Makes a strided convolution put 2 x 2 pixels into the channels, in the order of a pixel-unshuffle."""
    clear(layer)
    layer.weight[: 4 * channels, :channels, :2, :2] = torch.eye(4 * channels).view(4 * channels, channels, 2, 2)


@torch.no_grad()
def set_encoder(autoencoder: AutoencoderKL, code: Code) -> None:
    """Makes the encoder the code, exactly but for rounding.

    Strided convolutions put the pixels of a block into channels, and the third one maps them onto the components.
    Normalization and SiLU at the end would not be linear; each number goes through them twice, once negated, since
    SiLU(x) - SiLU(-x) = x, beside large constants, so that every image has the same deviation.
    """
    encoder, count = autoencoder.encoder, len(code["scale"])
    silence_blocks(encoder)
    blocks = encoder.down_blocks
    set_center(clear(encoder.conv_in), torch.eye(3))
    set_fold(blocks[0].downsamplers[0].conv, 3)
    set_center(clear(blocks[1].resnets[0].conv_shortcut), torch.eye(12))
    set_fold(blocks[1].downsamplers[0].conv, 12)
    set_center(clear(blocks[2].resnets[0].conv_shortcut), torch.eye(48))
    onto = clear(blocks[2].downsamplers[0].conv)
    folded = F.pixel_unshuffle(F.pixel_unshuffle(code["components"].view(count, 3, BLOCK, BLOCK), 2), 2)
    onto.weight[:count, : folded.shape[1], :2, :2] = folded
    onto.bias[:count] = -code["components"] @ code["mean"]

    norm, out = encoder.conv_norm_out, clear(encoder.conv_out)
    groups, width = norm.num_groups, norm.num_channels // norm.num_groups
    pairs = math.ceil(count / groups)
    if 2 * pairs + 2 > width:
        raise ValueError(f"{count} numbers do not fit {groups} groups of {width} channels.")
    constants = (width - 2 * pairs) // 2 * 2
    shortcut = clear(blocks[3].resnets[0].conv_shortcut)
    nn.init.zeros_(norm.bias)
    nn.init.constant_(norm.weight, CONSTANT * math.sqrt(constants / width))
    for number, scale in enumerate(code["scale"]):
        plus = number % groups * width + 2 * (number // groups)
        shortcut.weight[plus, number, 0, 0], shortcut.weight[plus + 1, number, 0, 0] = scale, -scale
        out.weight[number, plus, 1, 1], out.weight[number, plus + 1, 1, 1] = 1.0, -1.0
    for group in range(groups):
        first = group * width + 2 * pairs
        signs = torch.tensor([1.0, -1.0]).repeat(constants // 2)
        shortcut.bias[first : first + constants] = CONSTANT * signs
    out.bias[count:] = LOG_VARIANCE
    set_center(clear(autoencoder.quant_conv), torch.eye(2 * count))


@torch.no_grad()
def set_decoder(autoencoder: AutoencoderKL) -> None:
    """Makes the decoder linear: its last layers pass on three channels, those before begin with orthogonal weights."""
    decoder = autoencoder.decoder
    silence_blocks(decoder)
    set_center(clear(autoencoder.post_quant_conv), torch.eye(autoencoder.config.latent_channels))
    shortcut, norm = clear(decoder.up_blocks[3].resnets[0].conv_shortcut), decoder.conv_norm_out
    out, width = clear(decoder.conv_out), norm.num_channels // norm.num_groups
    if width < 4:
        raise ValueError(f"The last normalization needs groups of 4 channels or more, and has {width}.")
    nn.init.zeros_(norm.bias)
    for color in range(3):
        plus = color * width
        shortcut.weight[plus, color, 0, 0], shortcut.weight[plus + 1, color, 0, 0] = 1.0, -1.0
        shortcut.bias[plus + 2], shortcut.bias[plus + 3] = TAIL_CONSTANT, -TAIL_CONSTANT
        norm.weight[plus : plus + 2] = TAIL_CONSTANT * math.sqrt(2 / width)
        out.weight[color, plus, 1, 1], out.weight[color, plus + 1, 1, 1] = 1.0, -1.0
    for layer in linear_layers(autoencoder):
        if layer.kernel_size[0] > 1:
            nn.init.orthogonal_(layer.weight.view(len(layer.weight), -1))
            nn.init.zeros_(layer.bias)


def linear_layers(autoencoder: AutoencoderKL) -> list[nn.Conv2d]:
    """The layers of the decoder by which it is linear, in their order."""
    layers = [autoencoder.decoder.conv_in]
    for number, block in enumerate(autoencoder.decoder.up_blocks[:3]):
        if number:
            layers.append(block.resnets[0].conv_shortcut)
        layers.append(block.upsamplers[0].conv)
    return layers


def decode_linearly(autoencoder: AutoencoderKL, numbers: Tensor) -> Tensor:
    """Images of shape (B, 3, H, W), in [-1, 1], by the linear layers alone: all that `set_decoder` leaves of it."""
    layers = iter(linear_layers(autoencoder))
    features = next(layers)(numbers)
    for number in range(3):
        if number:
            features = next(layers)(features)
        features = next(layers)(F.interpolate(features, scale_factor=2.0, mode="nearest"))
    return features[:, :3]


def is_residual(name: str) -> bool:
    """Whether a parameter of this name lies in a residual block, which is silent at first."""
    return any(part in name for part in (".norm1.", ".norm2.", ".conv1.", ".conv2."))
