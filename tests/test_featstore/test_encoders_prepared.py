import pytest
import timm
import torch

from featstore.encoders.build import build
from featstore.encoders.golden import golden_patches
from featstore.encoders.prepared import prepared


def batch_norms(encoder):
    return sum(isinstance(module, torch.nn.BatchNorm2d) for module in encoder.network.modules())


@pytest.mark.parametrize("model", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"])
def test_a_prepared_encoder_gives_the_same_and_the_built_one_is_left_as_it_is(model):
    encoder = build(f"timm:{model}", random_weights=0)
    with torch.no_grad():  # batch norms that have seen something
        for module in encoder.network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(generator=torch.Generator().manual_seed(1))
                module.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(2))
    patches, n_norms = golden_patches(160, 2), batch_norms(encoder)
    expected = encoder.embed_parts(patches)
    ready = prepared(encoder)
    scale = expected.abs().max()
    assert (ready.embed_parts(patches) - expected).abs().max() <= 1e-5 * scale
    assert batch_norms(ready) == 0
    assert batch_norms(encoder) == n_norms
    assert torch.equal(encoder.embed_parts(patches), expected)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_weights_are_cast_once_to_the_precision_of_the_pass(precision):
    encoder = build("timm:test_resnet", random_weights=0, precision=precision)
    ready = prepared(encoder)
    kinds = {
        module.weight.dtype
        for module in ready.network.modules()
        if isinstance(module, torch.nn.Conv2d)
    }
    assert kinds == {getattr(torch, precision)}
    patches = golden_patches(160, 2)
    assert torch.cosine_similarity(ready.embed(patches), encoder.embed(patches)).min() > 0.9999


class TwiceUsed(torch.nn.Module):
    """A convolution whose output goes around the batch norm as well: folding it would be wrong."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)
        torch.nn.init.constant_(self.norm.weight, 3.0)
        self.num_features = 4

    def forward_features(self, images):
        features = self.conv(images)
        return self.norm(features) + features

    def forward_head(self, features, pre_logits):
        return features.mean((2, 3))

    def forward(self, images):
        return self.forward_head(self.forward_features(images), pre_logits=True)


def test_where_folding_would_change_embeddings_nothing_is_folded():
    from featstore.encoders.encoder import Encoder

    spec = build("timm:test_resnet", random_weights=0).spec
    encoder = Encoder(spec, TwiceUsed())
    patches = golden_patches(160, 2)
    ready = prepared(encoder)
    assert torch.allclose(ready.embed(patches), encoder.embed(patches))
    assert batch_norms(ready) == 1


def test_weights_that_are_standardised_in_each_pass_keep_all_their_digits():
    encoder = build("timm:test_nfnet", random_weights=0, precision="bfloat16")
    kinds = {
        module.weight.dtype
        for module in prepared(encoder).network.modules()
        if isinstance(module, timm.layers.ScaledStdConv2d)
    }
    assert kinds == {torch.float32}
