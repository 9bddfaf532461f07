import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from reconstruct import from_torch
from reconstruct.evaluation.batch import Job
from reconstruct.evaluation.provenance import describe_run, fingerprint
from reconstruct.images.sets import Files
from reconstruct.images.sources import open_source
from reconstruct.zoo.load import load_model


def test_what_a_run_says_of_itself(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a b.png")
    net = load_model("convpool_cnn_c_crelu")
    job = Job({"conv1": ("map",)}, options={"budget": 9.0}, disturbance={"noise": 0.0})
    call = ["reconstruct", "evaluate", str(tmp_path), "--output", "my results"]
    run = describe_run(net, open_source(str(tmp_path)), job, call, random_weights=None, selection={"limit": 3})
    assert json.loads(json.dumps(run)) == run
    assert run["call"] == f"reconstruct evaluate {tmp_path} --output 'my results'"
    settings = run["settings"]
    assert settings["source"]["images"] == 1
    assert settings["size"] == net.input_size
    assert settings["methods"] == {"conv1": ["map"]}
    assert settings["model"]["weights"] == "convpool_cnn_c_crelu.safetensors"
    # Honest about the weights, from their card.
    assert run["trained_on"].startswith("1,305 pictures")
    assert "Not trained on ImageNet's images or labels" in run["trained_on"]
    assert run["versions"]["torch"] == torch.__version__
    assert run["machine"]["cores"] >= 1
    random = load_model("convpool_cnn_c_crelu", random_weights=4)
    run = describe_run(random, open_source(str(tmp_path)), job, call, random_weights=4, selection={})
    assert run["settings"]["model"]["weights"] == "random, seed 4"
    assert run["trained_on"] is None


def test_credentials_are_not_written_down() -> None:
    net = load_model("convpool_cnn_c_crelu")
    uri = "s3://KEY:SECRET@bucket/val?region=us-east-2"
    source = Files("folder", uri, ["a.png"], ["bucket/val/a.png"])
    run = describe_run(net, source, Job({"conv1": ["map"]}), ["evaluate", uri], random_weights=None, selection={})
    assert "SECRET" not in json.dumps(run)
    assert run["settings"]["source"]["path"] == "s3://...@bucket/val?region=us-east-2"


def test_the_fingerprint_tells_weights_and_activations() -> None:
    net = load_model("convpool_cnn_c_crelu")
    found = fingerprint(net)
    assert found == fingerprint(load_model("convpool_cnn_c_crelu"))
    with torch.no_grad():
        net.convolution("conv3").bias[0] += 1e-6
    others = {fingerprint(net), fingerprint(load_model("convpool_cnn_c"))}
    assert len(others | {found}) == 3


class Keeps(nn.Module):
    """A module with more than plain tensors in its state: words, and numbers of types that NumPy does not have."""

    def __init__(self, word: str = "a", entry: float = 1.0) -> None:
        super().__init__()
        self.word, self.conv = word, nn.Conv2d(3, 4, 3)
        nn.init.ones_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)
        self.register_buffer("sparse", (entry * torch.eye(3)).to_sparse())
        self.register_buffer("table", torch.quantize_per_tensor(torch.arange(4.0), 0.1, 0, torch.qint8))

    def get_extra_state(self) -> dict[str, object]:
        return {"word": self.word, "more": [None, object()]}

    def set_extra_state(self, state: object) -> None:
        pass

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:TypedStorage is deprecated")
def test_the_fingerprint_of_a_module_that_keeps_more_than_plain_tensors() -> None:
    def found(module: nn.Module) -> str:
        return fingerprint(from_torch(module, input_size=8))

    assert found(Keeps()) == found(Keeps())
    assert len({found(each) for each in (Keeps(), Keeps("b"), Keeps(entry=2.0))}) == 3
    net = from_torch(Keeps(), input_size=8)
    assert net.as_chain("conv") is not None  # what was made of it is kept by all of its state
    whole = fingerprint(net)
    assert fingerprint(net.bfloat16()) != whole
