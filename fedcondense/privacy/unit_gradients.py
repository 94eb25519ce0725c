"""Steps of descent on clipped and noised gradients of units; Opacus clips and sums.

Importing this module loads Opacus, which takes seconds: import it inside a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from fedcondense.errors import SettingsError
from fedcondense.learning.layers import FirstConvolution, PlaneNorm
from fedcondense.learning.randomness import secret_normal
from fedcondense.privacy.units import Sample

Load = Callable[[Sample], tuple[Tensor, Tensor]]


class SecretNoise(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimiser with noise from the operating system, drawn on the host.

    Opacus' own repeats with the seed of a generator, of which a CPU keeps 32 bits and CUDA 64.
    """

    def add_noise(self) -> None:
        """Add sigma * clip * standard normal noise to every summed gradient."""
        scale = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            noise = scale * secret_normal(*parameter.shape)
            parameter.grad = parameter.summed_grad.view_as(parameter) + noise.to(parameter)


class NoisyDescent:
    """DP-SGD (Abadi et al. 2016, alg. 1) on a network, unit by unit.

    A unit's gradient is the mean over its images. One step is

        w - rate / expected * (sum over units of clip(g_u) + sigma * clip * N(0, 1)),

    with momentum and weight decay as `optimiser` has them; they act on what is already noised.

    Args:
        network: trained in place; its parameters keep their names and order.
        make: the plain optimiser of its parameters.
        clip: bound on the norm of a unit's gradient.
        sigma: standard deviation of the noise, in units of `clip`.
        expected: declared number of units times the sampling rate; never the true size of a batch.

    Raises:
        SettingsError: the network mixes the images of a batch, as batch norm does.
    """

    def __init__(
        self,
        network: nn.Module,
        make: Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer],
        *,
        clip: float,
        sigma: float,
        expected: float,
    ) -> None:
        if ModuleValidator.validate(network, strict=False):
            raise SettingsError(
                "network: a layer mixes the images of a batch, so no image has its own gradient",
                hint="use group norm in place of batch norm",
            )
        self.network = network.train()
        self.parameters = list(network.parameters())
        # the loss is a sum: the mean of an empty Poisson batch would be no number
        self._per_image = GradSampleModule(library_layers(network), loss_reduction="sum")
        self.optimiser = SecretNoise(
            make(self.parameters),
            noise_multiplier=sigma,
            max_grad_norm=clip,
            expected_batch_size=expected,
        )
        self.steps = 0

    def step(self, parts: Sequence[Sample], load: Load) -> None:
        """One step on a sample that is handed over in parts, however many; noise comes once."""
        for number, part in enumerate(parts, start=1):
            self.differentiate(part, *load(part))
            self.optimiser.signal_skip_step(do_skip=number < len(parts))
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
        self.steps += 1

    def differentiate(
        self, part: Sample, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]
    ) -> None:
        """Leave the gradients of the units (units, ...) in `grad_sample` of each parameter."""
        images = images.requires_grad_()  # torch warns of a backward hook without such an input
        F.cross_entropy(self._per_image(images), labels, reduction="sum").backward()
        by_image = [p.grad_sample for p in self.parameters]  # type: ignore[attr-defined]
        finite = finite_rows(by_image)
        owners = part.owners.to(images.device)
        for parameter, gradients in zip(self.parameters, by_image, strict=True):
            gradients[~finite] = 0
            parameter.grad_sample = unit_means(gradients, owners, part.units)  # type: ignore[attr-defined]

    def release(self) -> None:
        """Take the hooks off the network."""
        self._per_image.remove_hooks()


def finite_rows(gradients: Sequence[Float[Tensor, "n ..."]]) -> Tensor:
    """Which images have a gradient that is a number everywhere (n,): NaN would pass a clip."""
    return torch.stack([g.flatten(1).isfinite().all(dim=1) for g in gradients]).all(dim=0)


def unit_means(
    gradients: Float[Tensor, "n ..."], owners: Int64[Tensor, " n"], units: int
) -> Float[Tensor, "u ..."]:
    """The mean gradient of each unit over its images."""
    if units == len(owners):  # one image each
        return gradients
    images = torch.bincount(owners, minlength=units)
    sums = gradients.new_zeros(units, *gradients.shape[1:]).index_add_(0, owners, gradients)
    return sums / images.view(-1, *[1] * (gradients.dim() - 1))


def library_layers(network: nn.Module) -> nn.Module:
    """Put the library's layers in the place of ours, in place, with the same parameters.

    Opacus knows layers by their exact type, and its hooks do not bear a ReLU in place.
    """
    for name, layer in network.named_children():
        setattr(network, name, _library_layer(layer) or library_layers(layer))
    return network


def _library_layer(layer: nn.Module) -> nn.Module | None:
    if isinstance(layer, nn.ReLU):
        return nn.ReLU()
    plain: nn.Module
    if isinstance(layer, PlaneNorm):
        plain = nn.GroupNorm(layer.num_groups, layer.num_channels, eps=layer.eps, device="meta")
    elif isinstance(layer, FirstConvolution):
        plain = nn.Conv2d(layer.in_channels, layer.out_channels, 3, padding=1, device="meta")
    else:
        return None
    plain.weight, plain.bias = layer.weight, layer.bias
    return plain
