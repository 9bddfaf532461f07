import collections
import pickle
import pickletools
from typing import Any

import numpy
import pytest

from reconstruct.images.plain_pickle import MOST_INSTRUCTIONS, PlainPickleError, read_plain_pickle
from tests.builders.synthetic import python2_pickle


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["u1", "<i8", ">u2", "i4"])
def test_data_is_what_pickle_makes_of_it(protocol: int, kind: str) -> None:
    data: dict[bytes, Any] = {
        b"a": [1, -2, 3 * 10**12, 0.5, None, True],
        b"b": b"x" * 300,
        b"c": "caf\xe9",
        b"d": (1, []),
    }
    data |= {b"e": b"", b"f": {b"g": 1}, b"h": [b"again"] * 3}
    found = read_plain_pickle(pickle.dumps(data, protocol))
    assert found == data
    array = numpy.asfortranarray(numpy.arange(6).reshape(2, 3).astype(kind))
    content = pickle.dumps({b"data": array}, protocol)
    if protocol == 5:  # as buffers that are shared: nobody publishes these
        with pytest.raises(PlainPickleError, match=r"it would run numpy\._core\.numeric\._frombuffer"):
            read_plain_pickle(content)
    else:
        assert numpy.array_equal(read_plain_pickle(content)[b"data"], array)


def test_keys_of_python_3_are_those_of_python_2() -> None:
    assert read_plain_pickle(pickle.dumps({"labels": [1]})) == read_plain_pickle(python2_pickle({"labels": [1]}))


# An array of objects, filled by a list: what ends the process where NumPy's own functions fill it.
OBJECTS = (
    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tU\1btR(K\1(K\1K\3tcnumpy\ndtype\n(U\2O8K\0K\1tR"
    b"(K\3U\1|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb\x89]tb."
)
REFUSED = {
    "objects": (OBJECTS, "an array is of the type 'O8'"),
    "text": (pickle.dumps(numpy.array(["a"]), 2), "an array is of the type 'U1'"),
    "a class": (pickle.dumps(collections.Counter()), r"it would run collections\.Counter"),
    "a shape that does not fit": (
        pickle.dumps(numpy.zeros(4, "u1"), 2).replace(b"K\x04\x85", b"K\x05\x85"), "it is damaged"
    ),
    "a key that is nested": (pickle.dumps({((((1,),),),): 1}), "nothing that it fits"),
    "a place in the memo that is far": (b"\x80\x02}r\xff\xff\xff\x7fj\xff\xff\xff\x7e.", "it is damaged"),
    "bytes that are not there": (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x0f.", "it is damaged"),
    "no end": (b"\x80\x02}", "it is damaged"),
    "another instruction": (b"\x80\x02](K\x01o.", "an instruction that data does not need, OBJ"),
    "instructions without end": (b"\x80\x02" + b"N0" * MOST_INSTRUCTIONS, "instruction"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_data_is_refused(name: str) -> None:
    content, message = REFUSED[name]
    with pytest.raises(PlainPickleError, match=message):
        read_plain_pickle(content)


def test_the_file_that_ended_the_process_is_one_of_objects() -> None:
    assert ("GLOBAL", "numpy.core.multiarray _reconstruct") in {
        (code.name, argument) for code, argument, _ in pickletools.genops(OBJECTS) if isinstance(argument, str)
    }
