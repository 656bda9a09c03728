"""The choice of heads, and both heads on chess positions."""

import dataclasses
import functools

import chess
import jax
import numpy as np
import pytest

from w2s_jax import batching
from w2s_jax import weak_labels
from w2s_jax.models import chess_heads
from w2s_jax.models import heads
from w2s_jax.models import presets
from w2s_jax.models import text_heads
from w2s_jax.models import tokenizers
from w2s_jax.models import transformer
from w2s_jax.tasks import chess as chess_task

import tiny_chess

BOARD = presets.PRESETS['board-xs']
DECODER = presets.PRESETS['tiny-decoder']
CHARACTERS = tokenizers.Characters()
PUZZLES = tiny_chess.examples(32)
TRUTH = weak_labels.ground_truth(PUZZLES)


def written(completion):
  """Returns the text of a row that is padded with -1."""
  return CHARACTERS.decode([completion[completion >= 0]])[0]


def answers(examples):
  """Returns the SAN of the right moves."""
  classes = examples.label_probs_NxC.argmax(1)
  return [x.completions[c] for x, c in zip(examples.inputs, classes)]


@functools.cache
def scorer():
  """Returns a MoveScorer and random parameters."""
  model = chess_heads.MoveScorer(BOARD)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: (0.3 * rng.normal(size=x.shape)).astype(np.float32),
    heads.parameter_shapes(model),
  )
  return model, params


def batch_of(model, tokenizer, examples, labels, *, length, max_length=64):
  rows, _ = model.rows(
    tokenizer, examples.inputs, labels, max_length=max_length
  )
  index = np.arange(len(rows))
  return batching.assemble(rows, index, length, batch_size=len(rows) + 1)


def test_choose_by_kind_of_inputs_and_model():
  assert isinstance(
    heads.choose('position', DECODER, 219), chess_heads.Generator
  )
  assert isinstance(
    heads.choose('position', BOARD, 219), chess_heads.MoveScorer
  )
  for config in (DECODER, presets.PRESETS['tiny-encoder']):
    assert isinstance(heads.choose('text', config, 2), text_heads.Classifier)
  for inputs, config, says in (
    ('position', presets.PRESETS['tiny-encoder'], "'encoder'.*board or de"),
    ('text', BOARD, "'board'.*'text'; use a model of kind encoder or decoder"),
  ):
    with pytest.raises(ValueError, match=says):
      heads.choose(inputs, config, 2)


def test_heads_are_registered_by_class_name():
  for name, head in heads.HEADS.items():
    assert head.__name__ == name
  for inputs, config in (
    ('text', DECODER),
    ('pair', DECODER),
    ('position', DECODER),
    ('position', BOARD),
  ):
    assert type(heads.choose(inputs, config, 2)) in heads.HEADS.values()
  verbalizer = heads.choose('text', DECODER, 2, label_ids=[5, 6])
  assert type(verbalizer) in heads.HEADS.values()


@pytest.mark.parametrize('length, layers', [(1, 0), (5, 2)])
def test_every_head_has_the_shapes_of_its_parameters(length, layers):
  for inputs, config, texts in (
    ('text', DECODER, 1),
    ('pair', DECODER, 2),
    ('position', DECODER, 1),
    ('position', BOARD, 1),
  ):
    config = dataclasses.replace(config, num_layers=layers)
    head = heads.choose(inputs, config, 2)
    arrays = dict(zip(head.INPUTS, head.dummy_inputs(length), strict=True))
    assert arrays['tokens'].shape == (1, texts * length)
    assert arrays['length'].size == texts
    traced = jax.eval_shape(head.init, jax.random.key(0), *arrays.values())
    shapes = heads.parameter_shapes(head)
    assert shapes == traced['params']
  config = dataclasses.replace(DECODER, num_layers=11)
  names = [x for x in transformer.parameter_shapes(config) if 'layer' in x]
  assert names[:3] == ['layer_0', 'layer_1', 'layer_10']  # as JAX orders them


def test_scorer_gives_all_probability_to_legal_moves():
  model, params = scorer()
  batch = batch_of(model, tokenizers.Board(), PUZZLES, TRUTH, length=40)
  answer = functools.partial(model.apply, method='answer')
  inputs = [batch[name] for name in model.INPUTS]
  probs_BxC = jax.jit(answer)({'params': params}, *inputs)
  for position, probs_C in zip(PUZZLES.inputs, probs_BxC):
    legal = chess.Board(position.fen).legal_moves.count()
    assert (probs_C[:legal] > 0).all() and not probs_C[legal:].any()
    np.testing.assert_allclose(probs_C.sum(), 1, atol=1e-5)
  labels_BxC, weight_B = model.targets(batch)
  np.testing.assert_array_equal(labels_BxC[:-1], PUZZLES.label_probs_NxC)
  np.testing.assert_array_equal(weight_B, batch['weight'])


@pytest.mark.parametrize(
  'fen, uci, captured, attackers, attacked',
  [
    # A rook moves along a line: its old square no longer blocks the line.
    ('4k3/8/8/8/R6r/8/8/4K3 w - - 0 1', 'a4g4', '', 'h4', 'h4'),
    # Pawn captures beside the king, with the queen behind as a defender.
    ('4k3/3p4/4P3/8/6Q1/8/8/4K3 w - - 0 1', 'e6d7', 'd7', 'e8 g4', 'e8'),
    # A knight, not a queen, forks king and bishop.
    ('4k3/2P5/3b4/8/8/8/8/4K3 w - - 0 1', 'c7c8n', '', '', 'd6'),
    # Positions with Black to move are flipped.
    ('4k3/8/8/3q4/4P3/8/8/4K2R b K - 0 1', 'd5e4', 'e4', '', 'e1 e8 h1'),
  ],
)
def test_score_is_computed_from_the_pieces_that_a_move_concerns(
  fen, uci, captured, attackers, attacked
):
  model, params = scorer()
  board = chess.Board(fen)
  encoded = chess_task.encode(board)
  move = chess_task.legal_moves(board).index(chess.Move.from_uci(uci))
  tokens_1xL = np.array([encoded.tokens], np.int32)
  length_1 = np.array([len(encoded.tokens)])
  moves = [np.array([column]) for column in encoded[1:]]
  logits_1xC = model.apply({'params': params}, tokens_1xL, length_1, *moves)
  x_1xLxD = transformer.Transformer(BOARD).apply(
    {'params': params['transformer']}, tokens_1xL, length_1
  )
  flip = 0 if board.turn else 56
  places = {token % 64: i for i, token in enumerate(encoded.tokens)}
  hidden_D = params['head_arrival']['embedding'][encoded.arrivals[move]]
  for role, names in {
    'mover': uci[:2],
    'capture': captured,
    'attacked_by': attackers,
    'attacks': attacked,
  }.items():
    for name in names.split():
      x_D = x_1xLxD[0, places[chess.parse_square(name) ^ flip]]
      dense = params[f'head_{role}']
      hidden_D = hidden_D + x_D @ dense['kernel'] + dense['bias']
  dense = params['head_score']
  expected_1 = np.maximum(hidden_D, 0) @ dense['kernel'] + dense['bias']
  np.testing.assert_allclose(logits_1xC[0, move], expected_1[0], rtol=1e-4)


def test_padding_of_moves_does_not_change_logits():
  model, params = scorer()
  batch = batch_of(model, tokenizers.Board(), PUZZLES, TRUTH, length=40)
  assert batch['movers'].shape == (33, 64)
  inputs = [batch[name] for name in model.INPUTS]
  wider = [np.pad(x, ((0, 0), (0, 64)), constant_values=-1) for x in inputs[2:]]
  narrow_BxC, wide_BxC = (
    model.apply({'params': params}, *inputs[:2], *moves)
    for moves in (inputs[2:], wider)
  )
  assert narrow_BxC.shape == (33, chess_task.NUM_CLASSES)
  np.testing.assert_allclose(narrow_BxC[:-1], wide_BxC[:-1], rtol=1e-5)
  queens = chess.Board('3Q4/k6Q/8/Q7/8/7Q/8/K3Q3 w - - 0 1')
  assert 64 < queens.legal_moves.count() <= 128
  rows = chess_heads.move_rows([chess_task.encode(queens)], None)
  assert rows.extra['movers'].shape == (1, 128)


def test_scorer_gives_labels_that_are_not_legal_zero_weight():
  model, _ = scorer()
  classes = np.array([0, chess_task.NOT_LEGAL])
  probs_NxC = np.eye(chess_task.NUM_CLASSES, dtype=np.float32)[classes]
  labels_BxC, weight_B = model.targets(
    {'label_probs': probs_NxC, 'weight': np.ones(2, np.float32)}
  )
  np.testing.assert_array_equal(weight_B, [1, 0])
  np.testing.assert_array_equal(labels_BxC, [probs_NxC[0], 0 * probs_NxC[1]])


def test_generator_rows_are_prompt_and_answer():
  model = chess_heads.Generator(DECODER)
  rows, cut = model.rows(CHARACTERS, PUZZLES.inputs, TRUTH, max_length=120)
  assert cut == 0 and rows.label_probs_NxC is None
  completion_NxT = rows.extra['completion'][np.arange(32)]
  moves = answers(PUZZLES)
  for i, position in enumerate(PUZZLES.inputs):
    assert written(completion_NxT[i]) == f' {moves[i]}\n'
    text = CHARACTERS.decode(rows.tokens[i : i + 1])[0]
    assert text == f'{position.prompt} {moves[i]}'
  unlabelled, _ = model.rows(CHARACTERS, PUZZLES.inputs, None, max_length=120)
  assert (unlabelled.extra['completion'][np.arange(32)] == -1).all()
  prompts = CHARACTERS.decode(unlabelled.tokens)
  assert prompts == [position.prompt for position in PUZZLES.inputs]


def test_long_prompts_are_truncated_at_the_start():
  model = chess_heads.Generator(DECODER)
  rows, cut = model.rows(CHARACTERS, PUZZLES.inputs, TRUTH, max_length=40)
  room = 40 - chess_task.MAX_COMPLETION
  prompts = [position.prompt for position in PUZZLES.inputs]
  assert cut == sum(len(prompt) > room for prompt in prompts) > 1
  for prompt, move, tokens in zip(prompts, answers(PUZZLES), rows.tokens):
    text = CHARACTERS.decode([tokens])[0]
    assert text == f'{prompt[-room:]} {move}' and len(tokens) < 40
  with pytest.raises(ValueError, match='max_length=9 has no room'):
    model.rows(CHARACTERS, PUZZLES.inputs, TRUTH, max_length=9)


def test_longest_move_fits_and_a_longer_one_is_an_error():
  model = chess_heads.Generator(DECODER)
  # Queens on a1, a3 and c1 can give check on b2.
  fen = '8/8/8/8/3k4/Q7/1r6/Q1Q1K3 w - - 0 1'
  position = chess_task.Position(fen, '')
  longest = position.completions.index('Qa1xb2+')
  probs_1xC = np.eye(chess_task.NUM_CLASSES, dtype=np.float32)[[longest]]
  labels = weak_labels.Labels(np.array(['x']), probs_1xC)
  rows, _ = model.rows(CHARACTERS, [position], labels, max_length=99)
  assert written(rows.extra['completion'][[0]][0]) == ' Qa1xb2+\n'

  class Spelling(tokenizers.Characters):
    def encode_whole(self, texts):
      return super().encode_whole([' '.join(text) for text in texts])

  with pytest.raises(ValueError, match=r"'Qa1xb2\+' is 17 tokens.*room for 9"):
    model.rows(Spelling(), [position], labels, max_length=99)


def test_a_chess_prompt_has_the_bos_token_of_its_tokenizer():
  class WithBos(tokenizers.Characters):
    def special_ids(self):
      return [1], []

  model = chess_heads.Generator(DECODER)
  position = chess_task.Position(chess.STARTING_FEN, '')
  for width, prompt in ((99, position.prompt), (9 + 5, position.prompt[-4:])):
    rows, cut = model.rows(WithBos(), [position], None, max_length=width)
    assert rows.tokens[0].tolist() == [1, *map(ord, prompt)]
    assert rows.tokens[0].dtype == np.int32 and cut == (width < 99)
  with pytest.raises(ValueError, match='max_length=10 has no room'):
    model.rows(WithBos(), [position], None, max_length=10)


def test_completions_of_a_supervisor_are_targets_verbatim():
  model = chess_heads.Generator(DECODER)
  texts = ['Ke9', '', 'no move at all', *answers(PUZZLES)[3:]]
  labels = TRUTH._replace(texts_N=np.array(texts))
  rows, _ = model.rows(CHARACTERS, PUZZLES.inputs, labels, max_length=120)
  found = [written(x) for x in rows.extra['completion'][np.arange(32)]]
  assert found[:3] == [' Ke9\n', ' \n', ' no move ']
  assert found[3:] == [f' {text}\n' for text in texts[3:]]


def test_read_accepts_exact_moves_only():
  model = chess_heads.Generator(DECODER)
  position = chess_task.Position(chess.STARTING_FEN, '')
  cases = {
    ' Nf3\nxxxx': ('Nf3', True),
    'e4\n': ('e4', True),
    ' e4': ('e4', True),
    '\n e4': ('', False),
    ' Nf3+\n': ('Nf3+', False),
    ' e2e4\n': ('e2e4', False),
    ' e5\n': ('e5', False),
  }
  width = max(map(len, cases))
  ids = np.stack(CHARACTERS.encode_whole([text.ljust(width) for text in cases]))
  probs_NxC, texts_N = model.read(CHARACTERS, [position] * len(cases), ids)
  assert probs_NxC.dtype == np.float32 and (probs_NxC.sum(1) == 1).all()
  wanted = list(cases.values())
  for probs_C, text, (says, legal) in zip(probs_NxC, texts_N, wanted):
    assert text == says
    choice = position.completions.index(says) if legal else -1
    assert probs_C[choice] == 1


def test_loss_is_on_the_completion_only():
  """Compares targets and logits with those at all positions of the sequence."""
  model = chess_heads.Generator(DECODER)
  params = initial_params(model)
  examples = PUZZLES.take([0, 1, 2])
  batch = batch_of(model, CHARACTERS, examples, TRUTH, length=96, max_length=96)
  labels_RxV, weight_R = model.targets(batch)
  logits_RxV = jax.jit(model.apply)(
    {'params': params}, *(batch[name] for name in model.INPUTS)
  )
  assert logits_RxV.shape == labels_RxV.shape == (4 * 9, DECODER.vocab_size)
  assert logits_RxV.dtype == np.float32
  x_BxLxD = transformer.Transformer(DECODER).apply(
    {'params': params['transformer']}, batch['tokens'], batch['length']
  )
  for b, (position, move) in enumerate(zip(examples.inputs, answers(examples))):
    start, text = len(position.prompt), f' {move}\n'
    for t in range(9):
      r = 9 * b + t
      assert weight_R[r] == (t < len(text))
      if t < len(text):
        assert labels_RxV[r].argmax() == ord(text[t])
        logits_1xV = transformer.next_token_logits(
          x_BxLxD[b, start - 1 + t][None], params['transformer'], DECODER
        )
        np.testing.assert_allclose(logits_RxV[r], logits_1xV[0], atol=1e-5)
  assert not np.any(weight_R[27:])  # the padding row


def initial_params(model):
  init = jax.jit(model.init)
  params = init(jax.random.key(0), *model.dummy_inputs(1))['params']
  assert params.keys() == {'transformer'}
  return params
