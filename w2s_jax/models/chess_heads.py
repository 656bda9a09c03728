"""Heads on chess positions: scores of legal moves, or moves written as text.

MoveScorer masks illegal moves in its logits; Generator maps an illegal text to
the class chess.NOT_LEGAL when it is read. heads.py has the protocol that both
fulfil.

Shapes as in transformer.py; C classes, M candidate moves, T tokens of a
completion, R = B * T.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from w2s_jax import batching
from w2s_jax import errors
from w2s_jax.models import chess_attacks
from w2s_jax.models import language_model
from w2s_jax.models import presets
from w2s_jax.models import text_heads
from w2s_jax.models import transformer
from w2s_jax.tasks import chess


class MoveScorer(text_heads.ClassHead):
  """Scores each legal move from the states of the pieces that it concerns.

  These are the moving piece, the captured one, and those that attack or are
  attacked by the piece on its new square. Masks illegal moves: among the
  float32 logits_BxC, over the classes of tasks/chess.py, theirs are the lowest
  float, so their probability is 0.
  """

  num_classes: int = chess.NUM_CLASSES

  INPUTS = ('tokens', 'length', 'movers', 'arrivals', 'captures')

  @nn.compact
  def __call__(
    self,
    tokens_BxL,
    length_B,
    movers_BxM,
    arrivals_BxM,
    captures_BxM,
    deterministic=True,
  ):
    num_tokens, embed_dim = tokens_BxL.shape[1], self.config.embed_dim
    trunk = transformer.Transformer(self.config, name='transformer')
    x_BxLxD = trunk(tokens_BxL, length_B, deterministic).astype(jnp.float32)
    attacked_BxMxL, attacks_BxMxL = chess_attacks.attacks_after(
      tokens_BxL, length_B, movers_BxM, arrivals_BxM
    )
    roles = {
      'mover': nn.one_hot(movers_BxM, num_tokens),
      'capture': nn.one_hot(captures_BxM, num_tokens),
      'attacked_by': attacked_BxMxL,
      'attacks': attacks_BxMxL,
    }
    arrival = nn.Embed(chess.VOCAB_SIZE, embed_dim, name='head_arrival')
    hidden_BxMxD = arrival(jnp.maximum(arrivals_BxM, 0))
    exact = transformer.EXACT
    for name, pieces_BxMxL in roles.items():
      state = nn.Dense(embed_dim, precision=exact, name=f'head_{name}')
      hidden_BxMxD += jnp.matmul(pieces_BxMxL, state(x_BxLxD), precision=exact)
    score = nn.Dense(1, precision=exact, name='head_score')
    logits_BxM = score(nn.relu(hidden_BxMxD))[:, :, 0]
    # Masks illegal moves: a row has its legal moves first, then padding of -1,
    # and classes beyond M are padded here.
    lowest = jnp.finfo(jnp.float32).min
    logits_BxM = jnp.where(movers_BxM >= 0, logits_BxM, lowest)
    absent = self.num_classes - logits_BxM.shape[1]
    return jnp.pad(logits_BxM, ((0, 0), (0, absent)), constant_values=lowest)

  def dummy_inputs(self, length):
    one_move = np.zeros((1, 1), np.int32)
    tokens = np.zeros((1, length), np.int32)
    return tokens, np.ones(1, np.int32), one_move, one_move, one_move

  def targets(self, batch):
    """Gives rows without a legal label, such as a written text, no weight."""
    label_probs_BxC = batch['label_probs']
    legal_B = jnp.argmax(label_probs_BxC, -1) != chess.NOT_LEGAL
    return legal_B[:, None] * label_probs_BxC, legal_B * batch['weight']

  def rows(self, tokenizer, inputs, labels, *, max_length):
    del max_length  # a board has at most 33 tokens
    label_probs_NxC = labels and labels.probs_NxC
    return move_rows(tokenizer.encode(inputs), label_probs_NxC), 0


def move_rows(encoded, label_probs_NxC):
  """Returns the rows of a MoveScorer for a list of chess.Encoded.

  M is the largest number of legal moves among them, rounded up to a multiple of
  64 so that few shapes are compiled.
  """
  most = max((len(row.movers) for row in encoded), default=0)
  width = min(64 * -(-most // 64), chess.MAX_LEGAL)
  extra = {
    name: batching.Padded([getattr(row, name) for row in encoded], width)
    for name in ('movers', 'arrivals', 'captures')
  }
  return batching.Rows([row.tokens for row in encoded], label_probs_NxC, extra)


class Generator(nn.Module):
  """Writes the move as text after a prompt (paper appendix A.2).

  Logits_RxV are those of the completion's tokens alone. The output table is
  that of the trunk, so there is no new head.
  """

  config: presets.TransformerConfig
  num_classes: int = chess.NUM_CLASSES

  DECODES = True
  INPUTS = ('tokens', 'length', 'completion')

  @nn.compact
  def __call__(self, tokens_BxL, length_B, completion_BxT, deterministic=True):
    trunk = transformer.Transformer(self.config, name='transformer')
    x_BxLxD = trunk(tokens_BxL, length_B, deterministic)
    # The last token of the prompt predicts the first of the completion.
    place_T = jnp.arange(completion_BxT.shape[1]) - 1
    place_BxT = (
      _prompt_length(length_B, completion_BxT)[:, None] + place_T[None]
    )
    x_BxTxD = jnp.take_along_axis(
      x_BxLxD, place_BxT[:, :, None], axis=1, mode='clip'
    )
    return transformer.next_token_logits(
      x_BxTxD.reshape(-1, self.config.embed_dim),
      trunk.variables['params'],
      self.config,
    )

  def dummy_inputs(self, length):
    tokens = np.zeros((1, length), np.int32)
    return tokens, np.ones(1, np.int32), np.zeros((1, 1), np.int32)

  def targets(self, batch):
    completion_BxT = batch['completion']
    labels_BxTxV = nn.one_hot(completion_BxT, self.config.vocab_size)
    weight_BxT = (completion_BxT >= 0) * batch['weight'][:, None]
    return (
      labels_BxTxV.reshape(-1, self.config.vocab_size),
      weight_BxT.reshape(-1),
    )

  def answer(self, tokens_BxL, length_B, completion_BxT):
    """Decodes [B, T] tokens greedily after the prompts."""
    return language_model.greedy_decode(
      self.config,
      self.variables['params']['transformer'],
      tokens_BxL,
      _prompt_length(length_B, completion_BxT),
      num_tokens=completion_BxT.shape[1],
    )

  def texts(self, inputs):
    return [position.prompt for position in inputs]

  def rows(self, tokenizer, inputs, labels, *, max_length):
    """Truncates long prompts at their start, to keep room for the completion.

    Raises:
      ValueError: max_length has no room for a prompt.
    """
    start, _ = tokenizer.special_ids()  # BOS, if it asks for one
    room = max_length - chess.MAX_COMPLETION - len(start)
    if room < 1:
      raise errors.UserError(
        f'max_length={max_length} has no room for a prompt: '
        f'{chess.MAX_COMPLETION} tokens are kept for the answer.'
      )
    prompts = tokenizer.encode_whole([position.prompt for position in inputs])
    completions = _completions(tokenizer, inputs, labels)
    tokens = [
      np.concatenate([start, prompt[-room:], completion[:-1]]).astype(np.int32)
      for prompt, completion in zip(prompts, completions)
    ]
    completion_NxT = batching.Padded(completions, chess.MAX_COMPLETION)
    rows = batching.Rows(tokens, extra={'completion': completion_NxT})
    return rows, sum(len(prompt) > room for prompt in prompts)

  def read(self, tokenizer, inputs, answers):
    """Parses answers: only the exact SAN of a legal move counts as that move.

    Returns:
      (one-hot probs_NxC, texts [N]); any other text is class NOT_LEGAL.
    """
    texts = tokenizer.decode(answers)
    texts = [text.partition('\n')[0].strip() for text in texts]
    classes = []
    for position, text in zip(inputs, texts):
      known = position.completions
      classes.append(known.index(text) if text in known else chess.NOT_LEGAL)
    probs_NxC = np.eye(self.num_classes, dtype=np.float32)[classes]
    return probs_NxC, np.array(texts)


def _prompt_length(length_B, completion_BxT):
  """Returns [B] tokens of the prompts.

  A row is its prompt and all but the last token of its completion; rows for
  prediction have an empty completion.
  """
  known_B = jnp.sum(completion_BxT >= 0, axis=1)
  return length_B - jnp.maximum(known_B - 1, 0)


def _completions(tokenizer, inputs, labels):
  """Returns the token ids of each completion; empty ones without labels.

  A text that the weak supervisor wrote is taken as it is, legal or not, and
  truncated to MAX_COMPLETION.

  Raises:
    ValueError: a legal move has more than MAX_COMPLETION tokens.
  """
  if labels is None:
    return [np.zeros(0, np.int32) for _ in inputs]
  texts = labels.texts_N
  if texts is None:
    choice_N = np.argmax(labels.probs_NxC, axis=1)
    texts = [x.completions[choice] for x, choice in zip(inputs, choice_N)]
  ids = tokenizer.encode_whole([f' {text}\n' for text in texts])
  for text, row in zip(texts, ids):
    if labels.texts_N is None and len(row) > chess.MAX_COMPLETION:
      raise errors.UserError(
        f'{text!r} is {len(row)} tokens of the model; there is room for '
        f'{chess.MAX_COMPLETION}.'
      )
  return [row[: chess.MAX_COMPLETION] for row in ids]
