"""Hashes and fields of single rows."""

import hashlib
import json

import numpy as np
import pytest

from w2s_jax.tasks import chess
from w2s_jax.tasks import conversion
from w2s_jax.tasks import reward


@pytest.mark.parametrize('value', [np.int64(3), np.float32(0.5), np.arange(2)])
def test_fields_of_numpy_are_json(value):
  (kept,) = json.loads(conversion.short_fields({'x': value})).values()
  assert kept == value.tolist()


@pytest.mark.parametrize(
  'inputs',
  [
    'a "text"\n\\ of é and \U0001f600',
    chess.Position('8/8 w', 'e2e4'),
    reward.Pair('a', 'b', 'ü'),
    ('a', 1),
    (),
    ['a', ('b', 'c')],
    17,
    None,
  ],
)
def test_hashes_are_those_of_the_json(inputs):
  expected = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]
  assert conversion.hash_of(inputs) == expected
  assert conversion.digest_of(inputs).hex() == expected


def test_hashes_kept_as_numbers_keep_their_text():
  texts = [conversion.hash_of(i) for i in range(50)]
  texts.append('00000000000000ff')
  numbers = np.array([int(text, 16) for text in texts], np.uint64)
  assert conversion.texts_of(numbers) == texts
  assert conversion.texts_of(numbers[:0]) == []
