"""Networks for images: the layers of the paper's tables, and a training mode that a stack of seeds survives."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig
from torch import Tensor, nn

from ivae_lab.config.build import ConfigError, build
from ivae_lab.core.data import Batch, DataSpec, Image, Splits
from ivae_lab.distributions.densities import Normal
from ivae_lab.engine.building import build_model
from ivae_lab.engine.datamodule import DataModule
from ivae_lab.engine.evaluate import encode
from ivae_lab.engine.member import RunMember
from ivae_lab.engine.module import SeedsModule
from ivae_lab.engine.options import Plan
from ivae_lab.engine.stack import Stack
from ivae_lab.engine.steps import State, sliced
from ivae_lab.networks.images import (
    BatchNorm,
    Dropout,
    Layers,
    ResBlock,
    WeightNormConv,
    _padding,
    convnet_decoder,
    convnet_encoder,
    mlp_decoder,
    mlp_encoder,
    resnet_decoder,
    resnet_encoder,
)
from tests.running import advance, difference

Compose = Callable[..., DictConfig]

CPU = torch.device("cpu")
NETWORKS: dict[str, tuple[Any, Any]] = {
    "mlp": (mlp_encoder, mlp_decoder),
    "convnet": (convnet_encoder, convnet_decoder),
    "resnet": (resnet_encoder, resnet_decoder),
}
DIGITS, COLOURS = Image(1, 28, 28, redrawn=True), Image(3, 32, 32)
SMALL, SMALL_COLOURS = Image(1, 8, 8, redrawn=True), Image(3, 8, 8)
needs_a_compiler = pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="no C++ compiler")
each_network = pytest.mark.parametrize("name", NETWORKS)


def spec_of(image: Image, rows: int = 40) -> DataSpec:
    width = image.channels * image.height * image.width
    return DataSpec(width, 4, None, rows, image.channels == 1, image)


def pair(name: str, image: Image, latent_dim: int = 5) -> tuple[Any, Any]:
    torch.manual_seed(0)
    encoder, decoder = NETWORKS[name]
    return encoder(spec_of(image), latent_dim, std="exp"), decoder(spec_of(image), latent_dim)


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def kinds(net: Any) -> list[str]:
    """The layers, without what only reshapes."""
    reshapes = (nn.Flatten, nn.Unflatten, nn.ZeroPad2d)
    return [type(layer).__name__ for layer in net.layers.each if not isinstance(layer, reshapes)]


def dense(*widths: int) -> int:
    return sum(a * b + b for a, b in pairwise(widths))


def block(channels_in: int, channels_out: int) -> int:
    """Directions, lengths and biases of two 3 x 3 convolutions, directions and lengths of a 1 x 1 one."""
    between = min(channels_in, channels_out)
    first = 9 * channels_in * between + 2 * between
    second = 9 * between * channels_out + 2 * channels_out
    return first + second + channels_in * channels_out + channels_out


class TestTables:
    """Layers and numbers of parameters, derived by hand from Tables A.2 to A.4, for d_z = n."""

    @pytest.mark.parametrize(("image", "d"), [(DIGITS, 28 * 28), (COLOURS, 32 * 32 * 3)])
    @pytest.mark.parametrize("n", [50, 90])
    def test_mlp(self, image: Image, d: int, n: int) -> None:
        encoder, decoder = pair("mlp", image, n)
        pair_of = ["Linear", "LeakyReLU"]
        assert kinds(encoder) == kinds(decoder)[:-1] == [*pair_of * 2, "Dropout", *pair_of * 2]
        assert kinds(decoder)[-1] == "Linear"
        assert count(encoder) == dense(d, 512, 384, 256, 256) + 2 * dense(256, n)
        assert count(decoder) == dense(n, 256, 256, 384, 512, d)
        assert (encoder.noise_dim, decoder.noise_dim) == (384, 256)
        slopes = {layer.negative_slope for layer in encoder.layers.each if isinstance(layer, nn.LeakyReLU)}
        assert slopes == {0.1}

    @pytest.mark.parametrize(("image", "c", "quarter"), [(DIGITS, 1, 7), (COLOURS, 3, 8)])
    @pytest.mark.parametrize("n", [50, 90])
    def test_convnet(self, image: Image, c: int, quarter: int, n: int) -> None:
        encoder, decoder = pair("convnet", image, n)
        down, up = (["Conv2d", "BatchNorm", "ELU"], ["ConvTranspose2d", "BatchNorm", "ELU"])
        stage, full = [*down * 2, "MaxPool2d"], quarter**2
        assert kinds(encoder) == [*stage * 2, "Conv2d", "Linear", "LeakyReLU"]
        assert kinds(decoder) == ["Linear", "LeakyReLU", "Linear", *up * 4, "Conv2d"]
        convolutions = 9 * (c * 8 + 8 * 16 + 16 * 32 + 32 * 64) + 2 * (8 + 16 + 32 + 64)  # and batch normalisation
        assert count(encoder) == convolutions + full * 64 * 64 + 64 + dense(64, 64) + 2 * dense(64, n)
        transposed = full * 64 * 64 + 16 * 64 * 32 + 9 * 32 * 16 + 16 * 16 * 8 + 2 * (64 + 32 + 16 + 8)
        assert count(decoder) == dense(n, 64, 64) + transposed + 9 * 8 * c + c
        assert encoder.noise_dim == decoder.noise_dim == 0

    @pytest.mark.parametrize(("image", "c"), [(DIGITS, 1), (COLOURS, 3)])
    @pytest.mark.parametrize("n", [50, 90])
    def test_resnet(self, image: Image, c: int, n: int) -> None:
        encoder, decoder = pair("resnet", image, n)
        assert kinds(encoder) == ["Conv2d", *["ResBlock"] * 5, "ReLU"]
        assert kinds(decoder) == ["Linear", *["ResBlock"] * 5, "ReLU", "Conv2d"]
        widths = [16, 32, 64, 128, 256, 512]
        assert count(encoder) == dense(c, 16) + sum(block(*each) for each in pairwise(widths)) + 2 * dense(512, n)
        assert count(decoder) == dense(n, 512) + sum(block(*each) for each in pairwise(widths[::-1])) + dense(16, c)

    @pytest.mark.parametrize(
        ("name", "image", "sizes"),
        [
            ("convnet", DIGITS, [28, 28, 28, 14, 14, 14, 7, 1]),
            ("convnet", COLOURS, [32, 32, 32, 16, 16, 16, 8, 1]),
            ("resnet", DIGITS, [28, 32, 32, 16, 8, 4, 2, 1]),
            ("resnet", COLOURS, [32, 32, 32, 16, 8, 4, 2, 1]),
        ],
    )
    def test_an_encoders_images_have_the_tables_sizes(self, name: str, image: Image, sizes: list[int]) -> None:
        assert sizes_in(pair(name, image)[0].layers, torch.randn(2, spec_of(image).x_dim)) == sizes

    @pytest.mark.parametrize(
        ("name", "image", "sizes"),
        [
            ("convnet", DIGITS, [1, 7, 14, 14, 28, 28]),
            ("convnet", COLOURS, [1, 8, 16, 16, 32, 32]),
            ("resnet", DIGITS, [1, 2, 4, 8, 16, 32, 32, 28]),
            ("resnet", COLOURS, [1, 2, 4, 8, 16, 32, 32, 32]),
        ],
    )
    def test_a_decoders_images_have_the_tables_sizes(self, name: str, image: Image, sizes: list[int]) -> None:
        assert sizes_in(pair(name, image)[1].layers, torch.randn(2, 5)) == sizes

    @pytest.mark.parametrize(("height", "width"), [(28, 28), (32, 32), (30, 27)])
    def test_small_images_are_padded_all_around(self, height: int, width: int) -> None:
        left, right, top, bottom = _padding(height, width)
        assert (width + left + right) % 32 == (height + top + bottom) % 32 == 0
        assert 0 <= right - left <= 1
        assert 0 <= bottom - top <= 1
        assert max(left + right, top + bottom) < 32


def sizes_in(layers: Layers, h: Tensor) -> list[int]:
    """Heights of the images, but those that an activation or a normalisation leaves as they are."""
    sizes = []
    for layer in layers.each:
        h = layer(h, None) if isinstance(layer, (BatchNorm, Dropout)) else layer(h)
        if h.dim() == 4 and not isinstance(layer, (BatchNorm, nn.ELU, nn.ReLU)):
            sizes.append(h.shape[2])
    return sizes


class TestNetworks:
    @each_network
    @pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (1, 64, 64), (2, 20, 44)])
    @pytest.mark.slow
    def test_rows_of_images_come_back_as_rows_of_images(self, name: str, shape: tuple[int, int, int]) -> None:
        encoder, decoder = pair(name, Image(*shape))
        width = spec_of(Image(*shape)).x_dim
        for live in (True, False):
            noises = [torch.randn(3, net.noise_dim) if live else None for net in (encoder, decoder)]
            posterior = encoder(torch.randn(3, width), None, noises[0])
            assert posterior.mean.shape == posterior.log_var.shape == (3, 5)
            assert decoder(posterior.mean, noises[1]).shape == (3, width)

    @pytest.mark.parametrize("name", ["convnet", "resnet"])
    def test_channels_rows_and_columns_are_not_mixed_up(self, name: str) -> None:
        """A first convolution sees neighbours: a change of one pixel reaches nearby places only."""
        encoder, _ = pair(name, COLOURS)
        until_first = Layers(*list(encoder.layers.each)[: 2 if name == "convnet" else 3])
        x = torch.zeros(1, 3, 32, 32)
        moved = x.clone()
        moved[0, 2, 10, 20] = 1.0
        change = (until_first(moved.flatten(1), None) - until_first(x.flatten(1), None)).abs().sum((0, 1))
        reach = 1 if name == "convnet" else 0
        rows, columns = change.nonzero().T.tolist()
        assert {min(rows), max(rows)} == {10 - reach, 10 + reach}
        assert {min(columns), max(columns)} == {20 - reach, 20 + reach}

    @each_network
    def test_every_parameter_gets_a_gradient(self, name: str) -> None:
        encoder, decoder = pair(name, Image(1, 8, 8))
        posterior = encoder(torch.randn(6, 64), None, torch.randn(6, encoder.noise_dim))
        output = decoder(posterior.mean, torch.randn(6, decoder.noise_dim))
        torch.autograd.backward(output.square().sum() + posterior.log_var.square().sum())
        for net in (encoder, decoder):
            for key, parameter in net.named_parameters():
                assert parameter.grad is not None, key
                assert parameter.grad.abs().max() > 1e-6, key  # more than rounding, as of a bias that cancels

    @pytest.mark.parametrize("name", ["convnet", "resnet"])
    def test_convolutions_ask_for_images(self, name: str) -> None:
        spec = DataSpec(64, 4, None, 40, True)
        encoder, decoder = NETWORKS[name]
        for make in (partial(encoder, std="exp"), decoder):
            with pytest.raises(ValueError, match=r"^expected images for .*, got data that are no images$"):
                make(spec, 5)

    def test_mlps_do_not(self) -> None:
        spec = DataSpec(7, 4, None, 40, False)
        mean = mlp_encoder(spec, 5, std="exp")(torch.randn(3, 7), None).mean
        assert mlp_decoder(spec, 5)(mean).shape == (3, 7)

    @pytest.mark.parametrize("shape", [(1, 30, 28), (1, 28, 30)])
    def test_a_convnet_asks_for_sizes_that_4_divides(self, shape: tuple[int, int, int]) -> None:
        with pytest.raises(ValueError, match=rf"^expected images whose .* 4 divides, got {shape[1]} x {shape[2]}$"):
            convnet_decoder(spec_of(Image(*shape)), 5)

    def test_a_softplus_head_gives_the_variance_by_softplus(self) -> None:
        torch.manual_seed(0)
        encoder: Any = mlp_encoder(spec_of(DIGITS), 5, std="softplus")
        x = torch.randn(3, 784)
        posterior = encoder(x, None)
        assert isinstance(posterior, Normal)
        spread = encoder.heads(encoder.layers(x, None))[:, 5:]
        torch.testing.assert_close(torch.exp(posterior.log_var), nn.functional.softplus(spread))


class TestBatchNorm:
    def test_it_is_pytorchs_over_several_steps(self) -> None:
        torch.manual_seed(0)
        own, other = BatchNorm(4), nn.BatchNorm2d(4)
        for step in range(5):
            h = (3 + 2 * torch.randn(6, 4, 3, 5)) * torch.tensor([1.0, 10.0, 0.1, 2.0])[:, None, None]
            ours, theirs = h.clone().requires_grad_(), h.clone().requires_grad_()
            weights = torch.randn_like(h)
            outputs = own(ours, torch.empty(6, 0)), other(theirs)
            torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
            for output in outputs:
                torch.autograd.backward((output * weights).sum())
            torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)
            for name in ("weight", "bias"):
                one, two = getattr(own, name), getattr(other, name)
                torch.testing.assert_close(one.grad, two.grad, atol=1e-4, rtol=1e-4)
                one.data -= 0.01 * one.grad
                two.data -= 0.01 * two.grad
            for name in ("running_mean", "running_var"):
                torch.testing.assert_close(own.get_buffer(name), other.get_buffer(name), msg=f"{name} at {step}")
        other.eval()
        torch.testing.assert_close(own(h, None), other(h), atol=1e-5, rtol=1e-5)

    def test_evaluation_changes_nothing_and_treats_rows_apart(self) -> None:
        layer, h = BatchNorm(4), torch.randn(6, 4, 3, 5)
        layer(h, torch.empty(6, 0))
        before = copy.deepcopy(layer.state_dict())
        torch.testing.assert_close(layer(h, None)[2:4], layer(h[2:4], None))
        torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)


class TestWeightNorm:
    @pytest.mark.parametrize("kernel", [1, 3])
    def test_it_is_pytorchs(self, kernel: int) -> None:
        torch.manual_seed(0)
        own = WeightNormConv(4, 6, kernel)
        plain = nn.Conv2d(4, 6, kernel, padding=kernel // 2)
        plain.load_state_dict({"weight": own.direction.detach(), "bias": own.bias.detach()})  # type: ignore[union-attr]
        h = torch.randn(2, 4, 5, 7)
        torch.testing.assert_close(own(h), plain(h))  # starts as PyTorch's own layer
        other: Any = nn.utils.parametrizations.weight_norm(plain)
        lengths, direction = other.parametrizations.weight.original0, other.parametrizations.weight.original1
        with torch.no_grad():
            for ours, theirs in ((own.length, lengths), (own.direction, direction)):
                theirs.copy_(ours.copy_(ours * torch.rand_like(ours)))
        torch.testing.assert_close(own(h), other(h))
        for output in (own(h), other(h)):
            torch.autograd.backward(output.square().sum())
        torch.testing.assert_close(own.length.grad, lengths.grad)
        torch.testing.assert_close(own.direction.grad, direction.grad)

    def test_the_length_of_a_direction_does_not_matter(self) -> None:
        own, h = WeightNormConv(4, 6, 3), torch.randn(2, 4, 5, 7)
        before = own(h)
        own.direction.data *= 3
        torch.testing.assert_close(own(h), before)


class TestDropout:
    @given(p=st.sampled_from([0.1, 0.5, 0.8]), seed=st.integers(0, 100))
    def test_zeros_are_as_frequent_as_asked_for_and_the_rest_makes_up(self, p: float, seed: int) -> None:
        noise = torch.randn(200, 50, generator=torch.Generator().manual_seed(seed))
        kept = Dropout(50, p)(torch.full((200, 50), 2.0), noise)
        values = kept.unique()
        torch.testing.assert_close(values, torch.tensor([0.0, 2 / (1 - p)]))
        assert abs((kept == 0).double().mean() - p) < 5 * (p * (1 - p) / 10_000) ** 0.5

    def test_evaluation_drops_nothing(self) -> None:
        h = torch.randn(3, 50)
        assert torch.equal(Dropout(50, 0.5)(h, None), h)

    def test_each_dropout_has_noise_of_its_own(self) -> None:
        layers, noise = Layers(Dropout(4, 0.5), BatchNorm(1), Dropout(4, 0.5)), torch.ones(2, 8)
        assert layers.noise_dim == 8
        noise[:, 1], noise[:, 6] = -1, -1
        layers.each[1] = nn.Identity()
        assert layers(torch.ones(2, 4), noise).tolist() == [[4, 0, 0, 4]] * 2


class TestResBlock:
    @pytest.mark.parametrize(("channels", "size"), [((3, 5), 4), ((5, 3), 16)])
    def test_it_halves_or_doubles(self, channels: tuple[int, int], size: int) -> None:
        assert ResBlock(*channels)(torch.randn(2, channels[0], 8, 8)).shape == (2, channels[1], size, size)

    @pytest.mark.parametrize("channels", [(3, 5), (5, 3)])
    def test_without_its_inner_part_it_is_a_map_of_channels_and_a_change_of_size(
        self, channels: tuple[int, int]
    ) -> None:
        block, h = ResBlock(*channels), torch.randn(2, channels[0], 8, 8)
        block.second.length.data.zero_()
        block.second.bias.data.zero_()  # type: ignore[union-attr]
        matrix = block.skip.direction[:, :, 0, 0]  # lengths are those of the directions at the start
        mapped = torch.einsum("oi,bihw->bohw", matrix, h)
        if channels[0] < channels[1]:
            expected = mapped.reshape(2, channels[1], 4, 2, 4, 2).mean((3, 5))
        else:
            expected = mapped.repeat_interleave(2, 2).repeat_interleave(2, 3)
        torch.testing.assert_close(block(h), expected)


def fake(image: Image, rows: int = 40) -> Splits:
    """Bytes of images that mean nothing."""
    generator, spec = torch.Generator().manual_seed(0), spec_of(image, rows)

    def part(begin: int, end: int) -> Batch:
        x = torch.randint(0, 256, (end - begin, spec.x_dim), dtype=torch.uint8, generator=generator)
        index = torch.arange(begin, end)
        return Batch(x, index % 4, None, index)

    return Splits(part(0, rows), part(0, 0), part(rows, rows + 16), spec, ("test",))


@pytest.fixture
def module_of(tiny: Compose) -> Callable[..., SeedsModule]:
    """(seeds, *overrides) to a training of VaDE on small images at step 0."""

    def module_of(seeds: list[int], *overrides: str, image: Image = SMALL, compiled: bool = False) -> SeedsModule:
        # A large epsilon: else a gradient that is nothing but rounding would move its parameter as far as any.
        small = ("model=vade_images", "model.latent_dim=3", "trainer.eps=0.01")
        config, splits = tiny(*small, *overrides), fake(image)
        training = build(config.trainer, "trainer")
        stack = Stack(lambda: build_model(config, splits.spec), seeds, CPU)
        data = DataModule([splits], Plan(0, 4, 2, 1), training.batch_size, CPU)
        return SeedsModule([RunMember(stack, splits, training.lr)], data, training, compiled)

    return module_of


def assert_same(one: State, other: State, tolerance: float = 0.0) -> None:
    """All that training changes but the sums of the loss, which are large."""
    for kind in one.keys() - {"sums"}:
        torch.testing.assert_close(one[kind], other[kind], atol=tolerance, rtol=tolerance)


IMAGES_OF = [("mlp", SMALL), ("convnet", SMALL), ("convnet", SMALL_COLOURS), ("resnet", SMALL)]


class TestTraining:
    @each_network
    @pytest.mark.slow
    def test_a_seed_among_others_is_the_seed_alone(self, name: str, module_of: Callable[..., SeedsModule]) -> None:
        start = module_of([3, 1], f"model/networks={name}")
        together = advance(module_of([3, 1], f"model/networks={name}"))
        alone = advance(module_of([1], f"model/networks={name}"))
        assert difference(start.stack.parameters, together.stack.parameters) > 1e-3
        assert_same(sliced(together.state, slice(1, 2)), alone.state, 2e-5)

    def test_running_statistics_are_each_seeds_own(self, module_of: Callable[..., SeedsModule]) -> None:
        module = advance(module_of([0, 1], "model/networks=convnet"))
        running = {key: value for key, value in module.state["buffers"].items() if "running" in key}
        assert len(running) == 2 * 8
        for key, (zero, one) in running.items():
            assert (zero != one).any(), key
        assert module.state["buffers"].keys() == module.stack.buffers.keys()

    @pytest.mark.parametrize("name", ["mlp", "convnet"])
    @pytest.mark.parametrize("live", [True, False])
    @pytest.mark.slow
    def test_encoding_changes_no_number_of_the_models(
        self, name: str, live: bool, module_of: Callable[..., SeedsModule]
    ) -> None:
        overrides = f"model/networks={name}", f"model.evaluate_live={str(live).lower()}"
        module = advance(module_of([0, 1], *overrides, image=SMALL_COLOURS), until=2)
        before, rows, model = copy.deepcopy(module.state), module.members[0].splits.test, module.stack.template
        noise = torch.randn(2, len(rows), model.noise_dim + model.live_dim)
        settled = module.stack.map("posterior_mean", rows)
        assert torch.equal(module.stack.map("bound", rows, noise)["mean"], settled) != live
        assert_same(module.state, before)

    def test_live_statistics_are_of_as_many_rows_as_asked_for(self, module_of: Callable[..., SeedsModule]) -> None:
        def means(live: str | int) -> Tensor:
            module = module_of([0, 1], "model/networks=convnet", f"model.evaluate_live={live}", image=SMALL_COLOURS)
            (part,) = encode(module.stack, module.members[0].splits, CPU)
            return torch.from_numpy(part.latents["mean"])

        module = module_of([0, 1], "model/networks=convnet", "model.evaluate_live=true", image=SMALL_COLOURS)
        rows, model = module.members[0].splits.test, module.stack.template
        noise = torch.zeros(2, 16, model.noise_dim + model.live_dim)
        whole = module.stack.map("bound", rows, noise)["mean"]
        blocks = [module.stack.map("bound", rows[at : at + 6], noise[:, at : at + 6])["mean"] for at in (0, 6, 12)]
        assert torch.equal(means("true"), whole)
        assert torch.equal(means(6), torch.cat(blocks, 1))
        assert (whole - torch.cat(blocks, 1)).abs().max() > 1e-3

    def test_no_rows_have_no_statistics(self, module_of: Callable[..., SeedsModule]) -> None:
        with pytest.raises(ConfigError, match=r"^model\.evaluate_live: expected .*greater than .*, got 0"):
            module_of([0], "model.evaluate_live=0")

    @each_network
    @pytest.mark.slow
    def test_a_resumed_training_is_the_uninterrupted_one(
        self, name: str, module_of: Callable[..., SeedsModule]
    ) -> None:
        whole = advance(module_of([0, 1], f"model/networks={name}"))
        half = advance(module_of([0, 1], f"model/networks={name}"), until=2)
        assert half.step == 2
        rest = module_of([0, 1], f"model/networks={name}")
        rest.restore(rest.members[0], copy.deepcopy(half.snapshot(half.members[0])))
        advance(rest)
        assert_same(whole.state, rest.state)

    @pytest.mark.usefixtures("traced_only")
    @pytest.mark.parametrize(("name", "image"), IMAGES_OF)
    @pytest.mark.slow
    def test_a_traced_training_is_the_plain_one(
        self, name: str, image: Image, module_of: Callable[..., SeedsModule]
    ) -> None:
        self.compare_compiled_with_plain(name, image, module_of)

    @needs_a_compiler
    @pytest.mark.slow
    @pytest.mark.thorough("four large programs, two minutes; traced, they are always compared")
    @pytest.mark.parametrize(("name", "image"), IMAGES_OF)
    def test_a_compiled_training_is_the_plain_one(
        self, name: str, image: Image, module_of: Callable[..., SeedsModule]
    ) -> None:
        self.compare_compiled_with_plain(name, image, module_of)

    @staticmethod
    def compare_compiled_with_plain(name: str, image: Image, module_of: Callable[..., SeedsModule]) -> None:
        # Two steps: sooner or later rounding turns a ReLU over, of colour images (with larger gradients) in the first.
        plain, compiled = (
            advance(module_of([0, 1], f"model/networks={name}", image=image, compiled=each), until=2)
            for each in (False, True)
        )
        assert_same(plain.state, compiled.state, 1e-4)


@pytest.mark.parametrize("model", ["vae_images", "vade_images", "ivae_images", "vade_images_released"])
@each_network
@pytest.mark.slow
def test_networks_are_chosen_by_one_word(model: str, name: str, composed: Compose) -> None:
    chosen = composed(f"model={model}", f"model/networks={name}").model
    assert chosen.encoder._target_ == f"ivae_lab.networks.{name}_encoder"
    assert chosen.decoder._target_ == f"ivae_lab.networks.{name}_decoder"
    assert chosen.encoder.std == ("softplus" if "released" in model else "exp")
