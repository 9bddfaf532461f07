import json
from pathlib import Path

import pytest

from reconstruct import ModelError, load_model
from reconstruct.network.architecture import Architecture, Layer
from reconstruct.zoo.specification import read_architecture
from reconstruct.zoo.specification_text import layer_table, specification_text
from tests.builders.specifications import POOLED, SMALL, write


def test_variants_say_where_their_activations_are() -> None:
    def with_activation(name: str, activation: str) -> list[str]:
        return [layer.name for layer in read_architecture(name).layers if layer.activation == activation]

    assert with_activation("crelu_conv1_4", "crelu") == ["conv1", "conv2", "conv3", "conv4"]
    assert with_activation("crelu_conv1_conv4_conv7", "crelu") == ["conv1", "conv4", "conv7"]
    assert with_activation("avr_conv1_7", "avr") == [f"conv{i}" for i in range(1, 8)]
    assert len(with_activation("crelu_all", "crelu")) == 12


def test_variants_of_filters_and_classes(tmp_path: Path) -> None:
    def filters(name: str, text: str) -> list[int]:
        return [layer.filters for layer in read_architecture(write(tmp_path, name, text)).layers]

    assert filters("small", POOLED) == [4, 4, 5]
    assert filters("double", 'base = "small.toml"\ndouble_filters = true') == [8, 8, 5]
    assert filters("doubled_crelu", 'base = "small.toml"\ndouble_filters = true\ncrelu = ["a"]') == [8, 16, 5]
    assert filters("half", 'base = "small.toml"\nhalve_filters = true\ncrelu = ["a"]') == [2, 4, 5]
    assert filters("classes", 'base = "small.toml"\nclasses = 7') == [4, 4, 7]
    assert filters("crelu", 'base = "small.toml"\nclasses = 8\ncrelu = ["b"]') == [4, 4, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("this is not TOML", "cannot be read as TOML"),
        ('base = "nothing"', "there is no model 'nothing'"),
        ('base = "wrong.toml"', "there is no specification wrong.toml|leads back"),
        ('base = "all_cnn_b"\ncrelu = ["conv13"]', "wrong.toml: crelu: there is no layer 'conv13', did you mean"),
        # A split point is no layer: it would be one more of the same name.
        ('base = "cifar_split"\ncrelu = ["ReLU11"]', "wrong.toml: crelu: there is no layer 'ReLU11'"),
        ('base = "all_cnn_b"\n[damping]\nconv13 = { conv1 = 1 }', "wrong.toml: damping of 'conv13': there is no such"),
        ('base = "all_cnn_b"\ncrelu = "conv1"', "crelu is a list of layer names"),
        ('base = "all_cnn_b"\ncrleu = ["conv1"]', "unknown key 'crleu', did you mean 'crelu'"),
        ('base = "all_cnn_b"\nslope = 2', "slope"),
        ('base = "all_cnn_b"\nweights = 3', "weights is a file name"),
        ('base = "all_cnn_b"\n[damping]\nconv2 = { conv1 = 1 }', "damping of conv2 must name conv1, conv2"),
        ('base = "all_cnn_b"\n[damping]\nconv1 = { conv1 = -1 }', "0 or above"),
        ("input_size = 20", "needs mean"),
        ('base = "all_cnn_b"\nclasses = 0', "classes is a whole number of 1 or above, not 0"),
        ('base = "all_cnn_b"\nclasses = "ten"', "classes is a whole number"),
        ('base = "crelu_all"\nclasses = 5', "wrong.toml: conv12 of crelu_all is crelu: its classes are even, not 5"),
        ('base = "all_cnn_b"\ndouble_filters = 1', "are true or false"),
        ('base = "all_cnn_b"\ndouble_filters = true\nhalve_filters = true', "contradict"),
        ('base = "convpool_cnn_c"\ncrelu = ["pool1"]', "crelu: pool1 is max_pool and has no activation"),
        ("input_dropout = 1\n" + SMALL, r"input_dropout lies in \[0, 1\)"),
        (POOLED.replace("max_pool", "pool"), "kind is one of conv, max_pool, avg_pool, not 'pool'"),
        (
            POOLED.replace('"max_pool"', '"max_pool", filters = 4'),
            "p: max_pool has no filters; it has name, kind",
        ),
        (POOLED.replace('"max_pool"', '"max_pool", batch_norm = true'), "max_pool has no batch_norm"),
        (POOLED.replace('"max_pool"', '"avg_pool", slope = 0.1'), "p: avg_pool has no slope"),
        (POOLED.replace('"max_pool", kernel = 2', '"max_pool"'), "layer p has no kernel"),
        (POOLED.replace("kernel = 2", "kernel = 2, padding = 2"), "padding of max_pool is at most half its kernel"),
        (POOLED.replace("kernel = 2", "kernel = 0"), "layer p: sizes are at least 1"),
        (SMALL.replace("filters = 4, ", 'kind = "max_pool", '), "a is max_pool"),
        (SMALL.replace("filters = 4, ", 'kind = "avg_pool", '), "a is avg_pool"),
        (SMALL + "torchvision = 3", 'torchvision is a table, layer = "key of a checkpoint"'),
        (SMALL + '[torchvision]\na = "x"\nb = 2', "torchvision is a table"),
        (SMALL + '[torchvision]\na = "x"\nd = "y"', "every layer with weights and no other: not so b, d"),
        (POOLED + '[torchvision]\na = "x"\nb = "y"\np = "z"', "and no other: not so p"),
        (SMALL + '[torchvision]\na = "x"\nb = "x"', "torchvision gives two layers the same key"),
        ('base = "alexnet"\n[torchvision]\nconv1 = "x"', "unknown key 'torchvision'"),
        (SMALL.replace("filters = 5, ", ""), "layer b has no filters"),
        (SMALL.replace("kernel = 3 }", "kernel = 0 }"), "sizes are at least 1"),
        (SMALL.replace("kernel = 3 }", 'kernel = "3" }'), "kernel is '3', not a int"),
        (SMALL.replace("kernel = 3 }", "kernel = 30 }"), "vanish"),
        (SMALL.replace('name = "b"', 'name = "a"'), "same name"),
        (SMALL.replace('name = "b"', 'name = "b.c"'), "not a plain word"),
        (SMALL.replace("std = [0.2, 0.2, 0.2]", "std = [0.2, 0.2, 0]"), "std"),
        (SMALL.replace("stride = 2", "strides = 2"), "unknown key 'strides', did you mean 'stride'"),
        (SMALL.replace("stride = 2", 'activation = "swish"'), "activation is one of"),
    ],
)
def test_faulty_specifications_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=message) as caught:
        load_model(write(tmp_path, "wrong", text), random_weights=0)
    assert type(caught.value).__module__ == "reconstruct.errors"


def test_a_base_that_leads_back_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "one", 'base = "two.toml"')
    path = write(tmp_path, "two", 'base = "one.toml"')
    with pytest.raises(ModelError, match="leads back"):
        load_model(path)


def test_groups_gaps_and_rounding_up_are_read_and_written(tmp_path: Path) -> None:
    layers = (
        Layer("a", 6, 3, padding=1, groups=3),
        Layer("p", kernel=3, stride=2, kind="max_pool", ceil_mode=True),
        Layer("b", 8, 3, padding=2, dilation=2, groups=2),
    )
    made = Architecture("g", layers, 20, (0.5,) * 3, (0.25,) * 3)
    path = tmp_path / "g.toml"
    path.write_text(specification_text(made, "g.safetensors"))
    read = read_architecture(str(path))
    assert read.layers == made.layers
    assert [read.parameters(name) for name in ("a", "b")] == [6 * 9, 8 * 3 * 9]
    assert read.response_sizes((20, 20)) == {"a": (20, 20), "p": (10, 10), "b": (10, 10)}
    assert read.multiplications("b", (20, 20))["b"] == 8 * 3 * 9 * 100
    assert read.receptive_field("b") == 3 + 2 + 4 * 2
    # By hand: the centre of window 0 of a is pixel 0, of p one pixel on, and b is centred.
    assert read.grid("b") == (1.5, 2)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Layer("a", 6, 3, groups=2), "layer a: 2 groups divide"),
        (Layer("a", 4, 3, groups=3), "layer a: 3 groups divide"),
        (Layer("a", 6, 3, groups=0), "sizes are at least 1"),
        (Layer("a", 6, 3, dilation=0), "sizes are at least 1"),
        (Layer("a", 6, 3, ceil_mode=True), "ceil_mode is of max_pool, not of conv"),
    ],
)
def test_groups_that_do_not_fit(layer: Layer, message: str, tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    line = ", ".join(f"{key} = {json.dumps(value)}" for key, value in layer_table(layer).items())
    path.write_text(f"input_size = 20\nmean = [0, 0, 0]\nstd = [1, 1, 1]\nlayers = [{{ {line} }}]\n")
    with pytest.raises(ModelError, match=message):
        read_architecture(str(path))


LAYER = '[{ name = "a", filters = 4, kernel = 3 }]'
PLAIN = "input_size = 20\nmean = [0.5, 0.5, 0.5]\nstd = [0.2, 0.2, 0.2]\nlayers = " + LAYER


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.2, 0.2, 0.2", "1" + "0" * 400 + ", 0.2, 0.2", "std is a list of numbers above 0 that float32 holds"),
        ("0.2, 0.2, 0.2", "1e-320, 0.2, 0.2", "std is a list of numbers above 0 that float32 holds"),
        ("0.5, 0.5, 0.5", "1e300, 0.5, 0.5", "mean is a list of numbers that float32 holds"),
        ("0.5, 0.5, 0.5", "1" + "0" * 400 + ", 0.5, 0.5", "mean is a list of numbers that float32 holds"),
        ("input_size = 20", "input_size = 1000000000", "input_size is a whole number of pixels, 1 to 16384"),
        ("kernel = 3", "kernel = 1" + "0" * 400, "layer a: kernel, stride and padding are at most 16384"),
        ("filters = 4", "filters = 100000000000000000000", "layer a: filters are at most 1,048,576"),
        ("filters = 4, kernel = 3", "filters = 1000000, kernel = 100, padding = 99", r"its layers have 3e\+10 weights"),
        (LAYER, f"{[LAYER[1:-1]] * 10_001}".replace("'", ""), "layers is a list of tables, at most 10,000"),
        ('name = "a"', f'name = "{"a" * 300}"', "has more than 100 characters"),
    ],
)
def test_numbers_and_names_beyond_use(old: str, new: str, message: str, tmp_path: Path) -> None:
    """Finite numbers of a file that float32 does not hold would give infinite features, or none."""
    assert old in PLAIN
    with pytest.raises(ModelError, match=message):
        read_architecture(write(tmp_path, "x", PLAIN.replace(old, new)))


def test_damping_beyond_float32(tmp_path: Path) -> None:
    for number in ("1" + "0" * 400, "1e300", "1e-320"):
        with pytest.raises(ModelError, match="damping is a table of tables"):
            read_architecture(write(tmp_path, "x", f"{PLAIN}\n[damping.a]\na = {number}"))


def test_a_chain_of_bases_has_an_end(tmp_path: Path) -> None:
    write(tmp_path, "0", PLAIN)
    for number in range(1000):
        write(tmp_path, str(number + 1), f'base = "{number}.toml"')
    assert read_architecture(str(tmp_path / "15.toml")).name == "15"
    with pytest.raises(ModelError, match="a base has a base, and so on, more than 20 times"):
        read_architecture(str(tmp_path / "1000.toml"))


@pytest.mark.parametrize("name", ["a" * 300, "a" * 300 + ".toml", "\\u0000", "\\u0000.toml"])
def test_names_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no (model|specification)"):
        read_architecture(write(tmp_path, "x", f'base = "{name}"'))
    path = write(tmp_path, "y", f'weights = "{name}"\n{PLAIN}')
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        load_model(path)


def test_long_words_are_compared_quickly_and_cut(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="unknown key") as caught:
        read_architecture(write(tmp_path, "x", f"{'a' * 100_000} = 1\n{PLAIN}"))
    assert len(str(caught.value)) <= 1000
    with pytest.raises(ModelError, match="a specification is smaller than"):
        read_architecture(write(tmp_path, "x", f'source = "{"a" * 10**6}"\n{PLAIN}'))
