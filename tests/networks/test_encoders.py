import json

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file

from monai_synth.networks import EncoderClassifier, FeatureEncoder, ImageClassifier, ImageEncoder, NeighborClassifier
from monai_synth.networks.checkpoints import find_weights
from monai_synth.networks.published import published_classifier
from monai_synth.utils.io import write_json


@pytest.mark.parametrize(
    ("name", "size", "nearest"),
    [
        ("swin_tiny_patch4_window7_224", 192, None),
        ("deit3_base_patch16_224", 128, None),
        ("volo_d1_224", 160, None),
        ("resnet18", 100, None),
        ("deit3_base_patch16_224", 200, "176, 192, 208, 224; it was published with 224"),
        ("maxvit_tiny_tf_224", 200, "160, 192, 224, 256; it was published with 224"),
        ("open_clip:ViT-B-32", 200, "160, 192, 224, 256; it was published with 224"),
    ],
)
def test_a_size_is_taken_or_refused_with_those_that_are(name, size, nearest):
    with torch.device("meta"):
        if nearest is None:
            assert ImageEncoder(name, image_size=size)(torch.empty(1, 3, size, size)).shape[0] == 1
            return
        with pytest.raises(ValueError, match=f"{name} cannot take images of 200 pixels.*{nearest}"):
            ImageEncoder(name, image_size=size)


def test_a_fixed_network_computes_what_timm_computes_at_that_size():
    torch.manual_seed(0)
    ours = ImageClassifier("test_vit", 3, image_size=64).eval()
    theirs = timm.create_model("test_vit", num_classes=3, img_size=64).eval()
    theirs.load_state_dict(ours.backbone.state_dict())
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs((images - 0.5) / 0.5))


def test_position_embeddings_are_resampled_to_the_image_size(tmp_path, tiny_clip):
    source = timm.create_model("test_vit")
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    network = ImageClassifier("test_vit", 2, checkpoint=str(tmp_path), image_size=64)
    assert network.backbone.pos_embed.shape != source.pos_embed.shape
    assert torch.equal(network.backbone.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)
    name, folder = tiny_clip
    larger = ImageEncoder(f"open_clip:{name}", checkpoint=str(folder), image_size=64)
    assert larger.tower.positional_embedding.shape[0] == 64 // 8 * 8 + 1


def test_the_image_tower_is_open_clips_own(tiny_clip):
    name, folder = tiny_clip
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    encoder = ImageEncoder(f"open_clip:{name}", checkpoint=str(folder)).eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(encoder(images), model.encode_image((images - encoder.mean) / encoder.std))


def test_an_open_clip_model_may_have_a_tower_of_timm(tmp_path):
    vision = {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear", "image_size": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1}
    write_json(tmp_path / "tiny-timm-clip.json", {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text})
    open_clip.add_model_config(tmp_path / "tiny-timm-clip.json")
    model = open_clip.create_model("tiny-timm-clip").eval()
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    encoder = ImageEncoder("open_clip:tiny-timm-clip", checkpoint=str(tmp_path)).eval()
    images = torch.rand(2, 3, 32, 32)
    expected = model.encode_image((images - encoder.mean) / encoder.std)
    torch.testing.assert_close(encoder(images), expected)
    assert encoder.feature_size == expected.shape[1] == 24
    with torch.device("meta"):
        for name in ("convnext_tiny", "ViT-B-16-SigLIP"):
            encoder = ImageEncoder(f"open_clip:{name}")
            assert encoder(torch.empty(1, 3, 224, 224)).shape == (1, encoder.feature_size)
        with pytest.raises(ValueError, match="tiny-timm-clip cannot take images of 40 pixels.*published with 32"):
            ImageEncoder("open_clip:tiny-timm-clip", image_size=40)


def test_a_frozen_encoder_stays_as_it_is():
    network = EncoderClassifier("test_resnet", 2, frozen=True).train()
    before = {key: value.clone() for key, value in network.encoder.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(torch.rand(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in network.encoder.state_dict().items())
    assert network.head.weight.grad is not None and not network.encoder.training


def test_the_nearest_neighbors_vote_as_worked_out_by_hand():
    network = NeighborClassifier("test_resnet", 2, neighbors=2, temperature=0.5)
    features = torch.zeros(3, network.features.shape[1])
    features[0, 0], features[1, 1], features[2, 0] = 2.0, 1.0, -1.0  # cosines to the query: 1, 0, -1
    network.remember(features, torch.tensor([1, 0, 0]), torch.tensor([1.0, 3.0, 9.0]))
    network.encoder = torch.nn.Linear(2, 2)  # replaced by the query's own feature below
    network.encoder.forward = lambda x: features[:1]
    probabilities = network(torch.zeros(1, 3, 8, 8)).softmax(-1)
    loudness = torch.tensor(-2.0).exp()  # (0 - 1) / 0.5
    torch.testing.assert_close(probabilities[0, 0], 3 * loudness / (3 * loudness + 1))
    network.forget()
    with pytest.raises(RuntimeError, match="remembers no images yet"):
        network(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="neighbors is 0, temperature 0.07"):
        NeighborClassifier("test_resnet", 2, neighbors=0)


def test_a_memory_of_any_size_is_loaded_and_scripts():
    network = NeighborClassifier("test_resnet", 2).eval()
    network.remember(network.encoder(torch.rand(5, 3, 32, 32)), torch.tensor([0, 1, 1, 0, 1]), torch.ones(5))
    empty = NeighborClassifier("test_resnet", 2).eval()
    empty.load_state_dict(network.state_dict())
    again = published_classifier(network.describe(), 2, 32).eval()
    again.load_state_dict(network.state_dict())
    images = torch.rand(3, 3, 32, 32)
    for other in (empty, torch.jit.script(again)):
        torch.testing.assert_close(other(images), network(images))


def test_what_does_not_fit_is_refused(tmp_path, tiny_clip):
    name, folder = tiny_clip
    with pytest.raises(ValueError, match="open_clip has no model 'ViT-B-33'. Near names are"):
        ImageEncoder("open_clip:ViT-B-33")
    with pytest.raises(ValueError, match="timm has no model 'resnet1'. Near names are"):
        ImageEncoder("resnet1")
    with pytest.raises(
        ValueError, match="the model is of family|The model is of family 'new'; this version knows timm"
    ):
        published_classifier({"family": "new"}, 2)
    save_file({"vision_model.x": torch.zeros(1)}, tmp_path / "transformers.safetensors")
    with pytest.raises(ValueError, match="holds no open_clip model.*looks like a file of transformers"):
        ImageEncoder(f"open_clip:{name}", checkpoint=str(tmp_path / "transformers.safetensors"))
    save_file({"visual.conv1.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(
        ValueError, match=r"does not fit open_clip:tiny.*\(1,\) in the file, \(32, 3, 8, 8\) in the net"
    ):
        ImageEncoder(f"open_clip:{name}", checkpoint=str(tmp_path / "other.safetensors"))
    note = folder / "open_clip_config.json"
    config = json.loads(note.read_text())
    quick = tmp_path / "quick"
    quick.mkdir()
    (quick / "model.safetensors").write_bytes((folder / "open_clip_model.safetensors").read_bytes())
    config["model_cfg"]["quick_gelu"] = True
    (quick / note.name).write_text(json.dumps(config))
    with pytest.raises(ValueError, match="says quick_gelu True.*Take open_clip:tiny-clip-quickgelu"):
        ImageEncoder(f"open_clip:{name}", checkpoint=str(quick))


def test_timm_cannot_read_a_foreign_vit(tmp_path):
    save_file({"pos_embed": torch.zeros(3)}, tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match="odd.safetensors does not fit test_vit"):
        ImageClassifier("test_vit", 2, checkpoint=str(tmp_path / "odd.safetensors"))


def test_where_weights_are_found(tmp_path, monkeypatch):
    for name in ("a.safetensors", "b.safetensors"):
        save_file({"x": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(ValueError, match="holds 2 safetensors files.*a.safetensors"):
        find_weights(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert find_weights(tmp_path).name == "model.safetensors"
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty holds no safetensors file"):
        find_weights(tmp_path / "empty")
    save_file({"x": torch.zeros(1)}, tmp_path / "empty" / "only.safetensors")
    assert find_weights(tmp_path / "empty").name == "only.safetensors"
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="torn.safetensors cannot be read as safetensors"):
        ImageClassifier("test_resnet", 2, checkpoint=str(tmp_path / "torn.safetensors"))


def test_the_hub_is_asked_for_safetensors_alone(tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    def has(name):
        def download(repo, file, revision=None, etag_timeout=None):
            if name is None:
                raise OSError("no network")
            if file != name:
                raise EntryNotFoundError("no")
            return str(tmp_path / f"{repo.replace('/', '_')}_{revision}_{file}")

        return download

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", has("model.safetensors"))
    assert find_weights("timm/resnet50.a1_in1k@v1").name == "timm_resnet50.a1_in1k_v1_model.safetensors"
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", has("pytorch_model.bin"))
    with pytest.raises(FileNotFoundError, match="The hub's a/b has none of open_clip_model.safetensors"):
        find_weights("a/b")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", has(None))
    with pytest.raises(RuntimeError, match="'a/b' is no file or folder here, and the hub could not give it"):
        find_weights("a/b")


@pytest.mark.parametrize(
    "build", [lambda path: ImageClassifier("test_resnet", 2, path), lambda path: ImageEncoder("test_resnet", path)]
)
def test_a_network_sees_colors_as_its_checkpoint_did(build, tmp_path):
    source = timm.create_model("test_resnet", num_classes=0)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    of_the_architecture = build(None).mean.flatten().tolist()
    assert build(str(tmp_path)).mean.flatten().tolist() == of_the_architecture  # nothing beside the weights tells
    write_json(tmp_path / "config.json", {"pretrained_cfg": {"mean": [0.5, 0.25, 0.125], "std": [0.5, 1.0, 2.0]}})
    network = build(str(tmp_path))
    assert (network.mean.flatten().tolist(), network.std.flatten().tolist()) == ([0.5, 0.25, 0.125], [0.5, 1.0, 2.0])


def test_the_embedded_start_of_a_classifier_gives_the_features_of_the_embedded_encoder():
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    classifier = ImageClassifier("regnetx_002", 4, "auto").eval()
    seen = classifier.backbone.forward_features((images - classifier.mean) / classifier.std).mean((2, 3))
    torch.testing.assert_close(seen, FeatureEncoder("nano")(images), rtol=1e-4, atol=1e-5)
