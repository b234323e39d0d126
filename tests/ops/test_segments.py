import numpy as np
import pytest
from keras import ops

from keras_xent.ops.segments import segment_sum
from tests.testing import compiled, normal, to_numpy


def by_loop(values, ids, count):
    sums = np.zeros((count, *values.shape[1:]), values.dtype)
    for value, place in zip(values, ids, strict=True):
        if 0 <= place < count:
            sums[place] += value
    return sums


@pytest.mark.parametrize("shape", [(9,), (9, 2), (0,), (0, 2)])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_each_id_has_its_sum_and_others_are_left_out(shape, dtype):
    def sums(values, ids):
        return segment_sum(values, ids, 5)

    values = (10 * normal(*shape)).astype(dtype)
    ids = np.array([2, 0, 2, -1, 4, 5, -7, 2, 0], "int32")[: len(values)]
    for way in (sums, compiled(sums)):
        result = to_numpy(way(*map(ops.convert_to_tensor, (values, ids))))
        assert result.dtype == dtype
        np.testing.assert_allclose(result, by_loop(values, ids, 5), rtol=1e-6)
