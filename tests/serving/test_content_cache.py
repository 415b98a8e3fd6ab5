import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving.content_cache import ContentCache, digest

KIB = 1024


def one_kib(fill=0):
    return {"a": np.full(768, fill, np.uint8), "b": np.full(64, fill, np.float32)}


def never():
    raise AssertionError("computed again")


def keys(count):
    return [digest(np.array([index])) for index in range(count)]


def test_what_is_kept_is_returned_without_computing():
    cache = ContentCache(8 * KIB)
    first = cache.get(b"k", one_kib)
    assert cache.get(b"k", never) is first
    assert cache.size_bytes == KIB


def test_the_least_recently_used_result_goes_first():
    cache = ContentCache(3 * KIB)
    first, second, third, fourth = keys(4)
    for key in (first, second, third):
        cache.get(key, one_kib)
    cache.get(first, never)  # now the second is the oldest
    cache.get(fourth, one_kib)
    assert cache.size_bytes == 3 * KIB
    for key in (first, third, fourth):
        cache.get(key, never)
    with pytest.raises(AssertionError, match="computed again"):
        cache.get(second, never)


def test_a_result_larger_than_the_bound_is_given_and_not_kept_and_drives_nothing_out():
    cache = ContentCache(2 * KIB)
    cache.get(b"small", one_kib)
    large = cache.get(b"large", lambda: {"a": np.zeros(3 * KIB, np.uint8)})
    assert large["a"].nbytes == 3 * KIB
    assert cache.size_bytes == KIB
    cache.get(b"small", never)
    with pytest.raises(AssertionError):
        cache.get(b"large", never)


def test_one_large_result_drives_out_as_many_as_it_needs():
    cache = ContentCache(4 * KIB)
    for key in keys(4):
        cache.get(key, one_kib)
    cache.get(b"large", lambda: {"a": np.zeros(3 * KIB, np.uint8)})
    assert cache.size_bytes == 4 * KIB
    cache.get(keys(4)[3], never)


def test_a_bound_of_zero_keeps_nothing():
    cache = ContentCache(0)
    counted = []
    for _ in range(2):
        cache.get(b"k", lambda: counted.append(1) or one_kib())
    assert (len(counted), cache.size_bytes) == (2, 0)


def test_results_are_read_only_because_they_are_shared():
    array = ContentCache(KIB).get(b"k", one_kib)["a"]
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_an_error_reaches_the_caller_and_is_not_kept():
    cache = ContentCache(KIB)

    def fail():
        raise LookupError("no encoder")

    for _ in range(2):
        with pytest.raises(LookupError, match="no encoder"):
            cache.get(b"k", fail)
    assert cache.get(b"k", one_kib)["a"][0] == 0


def test_requests_for_one_content_at_the_same_time_share_one_computation():
    cache = ContentCache(0)  # shared while it runs, even where nothing is kept
    asking = threading.Barrier(16)
    computed = []

    def compute():
        computed.append(1)
        time.sleep(0.2)
        return one_kib()

    def ask(_):
        asking.wait()
        return cache.get(b"k", compute)

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(ask, range(16)))
    assert len(computed) == 1
    assert all(answer is answers[0] for answer in answers)


def test_all_who_wait_for_a_failing_computation_get_its_error():
    cache = ContentCache(KIB)
    asking = threading.Barrier(8)

    def fail():
        time.sleep(0.2)
        raise ValueError("broken")

    def ask(_):
        asking.wait()
        with pytest.raises(ValueError, match="broken"):
            cache.get(b"k", fail)
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(8)))
    assert cache.get(b"k", one_kib)


def test_different_contents_are_computed_side_by_side():
    cache = ContentCache(KIB)
    both = threading.Barrier(2)

    def compute():
        both.wait(timeout=5)  # passes only if the other one computes meanwhile
        return one_kib()

    with ThreadPoolExecutor(2) as threads:
        assert all(threads.map(lambda key: cache.get(key, compute), keys(2)))


def test_many_threads_keep_the_bound_and_get_the_right_results():
    cache = ContentCache(5 * KIB)
    known = keys(20)
    computing = [threading.Lock() for _ in known]

    def ask(seed):
        rng = np.random.default_rng(seed)
        for index in rng.integers(0, len(known), 300):

            def compute(index=index):
                assert computing[index].acquire(blocking=False), "computed twice at once"
                try:
                    return one_kib(fill=index)
                finally:
                    computing[index].release()

            answer = cache.get(known[index], compute)
            assert (answer["a"] == index).all()
            assert cache.size_bytes <= 6 * KIB  # one result is added before the oldest goes
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(8)))
    assert cache.size_bytes == 5 * KIB


def test_the_digest_tells_type_shape_and_every_value_apart():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    other = image.copy()
    other[1, 3, 2] ^= 1
    alike = [image, image.copy(), np.asfortranarray(image), np.repeat(image, 2, axis=1)[:, ::2]]
    different = [
        image.reshape(4, 2, 3),
        image.reshape(2, 3, 4),
        image.view(np.int8),
        image.reshape(24).view(np.uint16).reshape(2, 2, 3),
        other,
        image[:, ::-1],
        image[:0],
    ]
    assert {digest(array) for array in alike} == {digest(image)}
    assert len({digest(array) for array in [image, *different]}) == len(different) + 1
