"""What stands on the trunk: one class for each way to answer.

A head is a Flax module over `config` and `num_classes`, with

  INPUTS: the arrays of a batch that it reads, in the order of its arguments;
  __call__(*inputs, deterministic): float32 logits_RxK;
  targets(batch): (label_probs_RxK, weight_R) to hold against the logits;
  answer(*inputs): what to keep of each row, an array [B, ...];

and, on the host,

  rows(tokenizer, inputs, labels, max_length): (Rows, rows cut); labels are
    weak_labels.Labels in the order of the inputs, or None;
  read(tokenizer, inputs, answers): (class probabilities [N, C] of the answers,
    the texts [N] that were written, or None);
  texts(inputs): what a language model can learn from them, see LanguageModel.

To add one: its class here, and its line in `choose`.

Shapes as in transformer.py; C classes, M candidate moves, T tokens of a
completion, R the rows of a loss: of the batch, or its B * T tokens.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from w2s_jax import batching
from w2s_jax import errors
from w2s_jax.models import chess_attacks
from w2s_jax.models import decoding
from w2s_jax.models import transformer
from w2s_jax.tasks import chess

# The default on TPU is bfloat16.
_EXACT = jax.lax.Precision.HIGHEST


class _Chooser(nn.Module):
  """What heads have in common whose logits are those of the classes."""

  config: transformer.TransformerConfig
  num_classes: int

  def targets(self, batch):
    return batch['label_probs'], batch['weight']

  def answer(self, *inputs):
    return nn.softmax(self(*inputs))

  def read(self, tokenizer, inputs, answers):
    del tokenizer, inputs
    return answers, None


class Classifier(_Chooser):
  """Trunk, pooling and a bias-free linear head: float32 logits_BxC."""

  INPUTS = ('tokens', 'length')

  @nn.compact
  def __call__(self, tokens_BxL, length_B, deterministic=True):
    pooled_BxD = _pooled(self.config, tokens_BxL, length_B, deterministic)
    return _scores(self.num_classes, pooled_BxD)

  def rows(self, tokenizer, inputs, labels, *, max_length):
    tokens, cut_N = tokenizer.encode(inputs, max_length=max_length)
    return batching.Rows(tokens, labels and labels.probs_NxC), sum(cut_N)

  def texts(self, inputs):
    return inputs


def _pooled(config, tokens_BxL, length, deterministic):
  """Float32 [B, D], or [B, 2, D] of the texts of pairs.

  The modules of these two belong to the calling head.
  """
  trunk = transformer.Transformer(config, name='transformer')
  x_BxLxD = trunk(tokens_BxL, length, deterministic)
  return transformer.pool(x_BxLxD, length, config.pooling)


def _scores(num_scores, pooled):
  """Float32 [..., num_scores]."""
  return nn.Dense(
    num_scores,
    use_bias=False,
    kernel_init=nn.initializers.zeros,
    precision=_EXACT,
    name='head',
  )(pooled)


class RewardModel(_Chooser):
  """A scalar for each of two texts: logits_Bx2 are the rewards of a pair.

  So p(second preferred) = sigmoid(r2 - r1), as Bradley and Terry have it (paper
  appendix A.3), and all that works on two classes works on pairs. Both texts go
  through the trunk in one row, and neither sees the other.
  """

  num_classes: int = 2

  INPUTS = ('tokens', 'length')

  @nn.compact
  def __call__(self, tokens_BxL, length_Bx2, deterministic=True):
    pooled_Bx2xD = _pooled(self.config, tokens_BxL, length_Bx2, deterministic)
    return _scores(1, pooled_Bx2xD)[:, :, 0]

  def rows(self, tokenizer, inputs, labels, *, max_length):
    """Long texts lose their beginning: what is judged stands at the end."""
    tokens, cut = tokenizer.encode(
      self.texts(inputs), max_length=max_length, keep='end'
    )
    pairs = list(zip(tokens[::2], tokens[1::2], strict=True))
    cut_N = map(any, zip(cut[::2], cut[1::2]))
    return batching.Rows(pairs, labels and labels.probs_NxC), sum(cut_N)

  def texts(self, inputs):
    return [text for pair in inputs for text in pair.texts]


class Verbalizer(_Chooser):
  """What a language model says next: one token for each class.

  For prompting (paper section 5.2.1), and for fine-tuning without a new head.
  Logits_BxC are float32; tokenizers.Prompted asks the question.
  """

  label_ids: tuple = ()  # of the vocabulary, one for each class

  INPUTS = ('tokens', 'length')

  @nn.compact
  def __call__(self, tokens_BxL, length_B, deterministic=True):
    trunk = transformer.Transformer(self.config, name='transformer')
    x_BxLxD = trunk(tokens_BxL, length_B, deterministic)
    logits_BxV = transformer.next_token_logits(
      transformer.pool(x_BxLxD, length_B, 'last'),
      trunk.variables['params'],
      self.config,
    )
    return logits_BxV[:, np.array(self.label_ids)]

  rows = Classifier.rows
  texts = Classifier.texts


class Features(nn.Module):
  """What a frozen trunk makes of each text: [B, D], or [B, 2, D] of pairs."""

  config: transformer.TransformerConfig

  INPUTS = ('tokens', 'length')

  @nn.compact
  def __call__(self, tokens_BxL, length):
    return _pooled(self.config, tokens_BxL, length, True)

  answer = __call__


class Probe(_Chooser):
  """The head of a Classifier or a RewardModel alone, on stored features.

  Its tokenizer is a FeatureTable.
  """

  INPUTS = ('features',)

  @nn.compact
  def __call__(self, features, deterministic=True):
    del deterministic
    if features.ndim == 2:
      return _scores(self.num_classes, features)
    return _scores(1, features)[:, :, 0]

  def rows(self, tokenizer, inputs, labels, *, max_length):
    del max_length
    features = tokenizer.take(inputs)
    tokens = [np.zeros(1, np.int32)] * len(inputs)
    label_probs_NxC = labels and labels.probs_NxC
    return batching.Rows(tokens, label_probs_NxC, {'features': features}), 0


class FeatureTable:
  """Stands in for a tokenizer: the features [N, ...] of inputs read before."""

  def __init__(self, tokenizer, inputs, features):
    self._tokenizer = tokenizer
    self._place = {x: i for i, x in enumerate(inputs)}
    self._features = features

  def take(self, inputs):
    """Of these inputs, in their order."""
    return self._features[[self._place[x] for x in inputs]]

  def save(self, folder):
    self._tokenizer.save(folder)


class LanguageModel(nn.Module):
  """The next token of packed texts: unsupervised generative fine-tuning.

  Logits_RxV are float32; the output is the token embedding.
  """

  config: transformer.TransformerConfig
  num_classes: int = 0  # none but the vocabulary

  INPUTS = ('tokens', 'length')

  @nn.compact
  def __call__(self, tokens_BxL, length_B, deterministic=True):
    trunk = transformer.Transformer(self.config, name='transformer')
    x_BxLxD = trunk(tokens_BxL, length_B, deterministic)
    return transformer.next_token_logits(
      x_BxLxD[:, :-1].reshape(-1, self.config.embed_dim),
      trunk.variables['params'],
      self.config,
    )

  def targets(self, batch):
    """Class indices, as probabilities over a vocabulary would fill memory."""
    next_BxL = batch['tokens'][:, 1:]
    place_L = jnp.arange(1, next_BxL.shape[1] + 1)
    weight_BxL = place_L[None] < batch['length'][:, None]
    return next_BxL.reshape(-1), weight_BxL.reshape(-1).astype(jnp.float32)

  def answer(self, tokens_BxL, length_B):
    """Nats of each row's tokens after the first, and their number: [B, 2]."""
    batch = {'tokens': tokens_BxL, 'length': length_B}
    labels_R, weight_R = self.targets(batch)
    nats_R = optax.losses.softmax_cross_entropy_with_integer_labels(
      self(tokens_BxL, length_B), labels_R
    )
    sums = jnp.stack([nats_R * weight_R, weight_R])
    return sums.reshape(2, len(tokens_BxL), -1).sum(-1).T


def pack(tokenizer, texts, *, max_length):
  """Rows of max_length tokens, the last perhaps shorter, for a LanguageModel.

  Texts stand one behind the other with an end token between them, so nothing
  is cut and next to nothing padded.
  """
  end = np.array([tokenizer.end_id()], np.int32)
  pieces = [x for text in tokenizer.encode_whole(texts) for x in (text, end)]
  stream = np.concatenate(pieces)
  starts = range(0, len(stream), max_length)
  return batching.Rows([stream[i : i + max_length] for i in starts])


class MoveScorer(_Chooser):
  """A score for each legal move, from the states of the pieces it concerns.

  These are the one that moves, the one it takes, and those that it will attack
  and be attacked by where it arrives. Logits_BxC are float32, of the classes of
  tasks/chess.py; those that are no legal moves have probability 0.
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
    for name, pieces_BxMxL in roles.items():
      state = nn.Dense(embed_dim, precision=_EXACT, name=f'head_{name}')
      hidden_BxMxD += jnp.matmul(pieces_BxMxL, state(x_BxLxD), precision=_EXACT)
    score = nn.Dense(1, precision=_EXACT, name='head_score')
    logits_BxM = score(nn.relu(hidden_BxMxD))[:, :, 0]
    lowest = jnp.finfo(jnp.float32).min
    logits_BxM = jnp.where(movers_BxM >= 0, logits_BxM, lowest)
    absent = self.num_classes - logits_BxM.shape[1]
    return jnp.pad(logits_BxM, ((0, 0), (0, absent)), constant_values=lowest)

  def targets(self, batch):
    # What is no legal move, a text for example, has no place on a board.
    label_probs_BxC = batch['label_probs']
    legal_B = jnp.argmax(label_probs_BxC, -1) != chess.NOT_LEGAL
    return legal_B[:, None] * label_probs_BxC, legal_B * batch['weight']

  def rows(self, tokenizer, inputs, labels, *, max_length):
    del max_length  # a board has at most 33 tokens
    label_probs_NxC = labels and labels.probs_NxC
    return move_rows(tokenizer.encode(inputs), label_probs_NxC), 0


def move_rows(encoded, label_probs_NxC):
  """Rows for a MoveScorer of a list of chess.Encoded.

  Its arrays hold as many moves as the position that has most, rounded up.
  """
  most = max((len(row.movers) for row in encoded), default=0)
  width = min(64 * -(-most // 64), chess.MAX_LEGAL)
  extra = {
    name: batching.Padded([getattr(row, name) for row in encoded], width)
    for name in ('movers', 'arrivals', 'captures')
  }
  return batching.Rows([row.tokens for row in encoded], label_probs_NxC, extra)


class Generator(nn.Module):
  """Reads a prompt and writes the completion (paper appendix A.2).

  The logits_RxV are those of the completion's tokens alone, and the output is
  the token embedding, as in the language model that it was.
  """

  config: transformer.TransformerConfig
  num_classes: int = chess.NUM_CLASSES

  INPUTS = ('tokens', 'length', 'completion')

  @nn.compact
  def __call__(self, tokens_BxL, length_B, completion_BxT, deterministic=True):
    trunk = transformer.Transformer(self.config, name='transformer')
    x_BxLxD = trunk(tokens_BxL, length_B, deterministic)
    # A completion begins with what follows the last token of its prompt.
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

  def targets(self, batch):
    completion_BxT = batch['completion']
    labels_BxTxV = nn.one_hot(completion_BxT, self.config.vocab_size)
    weight_BxT = (completion_BxT >= 0) * batch['weight'][:, None]
    return (
      labels_BxTxV.reshape(-1, self.config.vocab_size),
      weight_BxT.reshape(-1),
    )

  def answer(self, tokens_BxL, length_B, completion_BxT):
    """The tokens [B, T] that it writes after the prompts."""
    return decoding.greedy(
      self.config,
      self.variables['params']['transformer'],
      tokens_BxL,
      _prompt_length(length_B, completion_BxT),
      num_tokens=completion_BxT.shape[1],
    )

  def texts(self, inputs):
    return [position.prompt for position in inputs]

  def rows(self, tokenizer, inputs, labels, *, max_length):
    """Prompts lose their beginning where they leave no room for an answer."""
    room = max_length - chess.MAX_COMPLETION
    if room < 1:
      raise errors.UserError(
        f'max_length={max_length} has no room for a prompt: '
        f'{chess.MAX_COMPLETION} tokens are kept for the answer.'
      )
    prompts = tokenizer.encode_whole([position.prompt for position in inputs])
    completions = _completions(tokenizer, inputs, labels)
    tokens = [
      np.append(prompt[-room:], completion[:-1])
      for prompt, completion in zip(prompts, completions)
    ]
    completion_NxT = batching.Padded(completions, chess.MAX_COMPLETION)
    rows = batching.Rows(tokens, extra={'completion': completion_NxT})
    return rows, sum(len(prompt) > room for prompt in prompts)

  def read(self, tokenizer, inputs, answers):
    """The class of the move that was written exactly, else the last one."""
    texts = tokenizer.decode(answers)
    texts = [text.partition('\n')[0].strip() for text in texts]
    classes = []
    for position, text in zip(inputs, texts):
      known = position.completions
      classes.append(known.index(text) if text in known else chess.NOT_LEGAL)
    probs_NxC = np.eye(self.num_classes, dtype=np.float32)[classes]
    return probs_NxC, np.array(texts)


def _prompt_length(length_B, completion_BxT):
  """The tokens of a row are those of the prompt and all but the last of its
  completion, which is empty while it is asked for."""
  known_B = jnp.sum(completion_BxT >= 0, axis=1)
  return length_B - jnp.maximum(known_B - 1, 0)


def _completions(tokenizer, inputs, labels):
  """Token ids of what is to be written after each prompt, nothing unlabelled.

  What a supervisor wrote is learned as it stands, legal or not.
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


def choose(inputs, config, num_classes, *, label_ids=None):
  """The head for inputs of a task ('text', 'position') on a trunk.

  Args:
    label_ids: of a Verbalizer; None asks for a head that is learned.

  Raises:
    ValueError: such a model can not read such inputs.
  """
  kind = config.reads
  if kind == 'text':
    kind = 'decoder' if config.causal else 'encoder'
  if label_ids is not None:
    if (inputs, kind) != ('text', 'decoder'):
      raise errors.UserError(
        f"head='verbalize' is for decoders on tasks of one text; this is a "
        f'model of kind {kind!r} and a task of kind {inputs!r}.'
      )
    return Verbalizer(config, num_classes, tuple(label_ids))
  heads = {
    ('text', 'encoder'): Classifier,
    ('text', 'decoder'): Classifier,
    ('pair', 'encoder'): RewardModel,
    ('pair', 'decoder'): RewardModel,
    ('position', 'board'): MoveScorer,
    ('position', 'decoder'): Generator,
  }
  if (inputs, kind) not in heads:
    able = [known for wanted, known in heads if wanted == inputs]
    raise errors.UserError(
      f'a model of kind {kind!r} can not take on a task whose inputs are of '
      f'kind {inputs!r}; use one of kind {" or ".join(able)}.'
    )
  return heads[inputs, kind](config, num_classes)


@functools.lru_cache(maxsize=64)
def parameter_shapes(head, length=1):
  """Nested dict of jax.ShapeDtypeStruct, not to be changed.

  Raises:
    ValueError: texts of this length do not fit the model.
  """
  inputs = dummy_inputs(head, length)
  return jax.eval_shape(head.init, jax.random.key(0), *inputs)['params']


def dummy_inputs(head, length=1):
  """One row of zeros, to trace a head with; `length` is that of each text."""
  texts = 2 if isinstance(head, RewardModel) else 1
  arrays = {
    'tokens': np.zeros((1, texts * length), np.int32),
    'length': np.ones((1, 2) if texts == 2 else 1, np.int32),
    'movers': np.zeros((1, 1), np.int32),
    'arrivals': np.zeros((1, 1), np.int32),
    'captures': np.zeros((1, 1), np.int32),
    'completion': np.zeros((1, 1), np.int32),
  }
  return [arrays[name] for name in head.INPUTS]


def head_from_token_rows(params, token_ids):
  """Params of a Classifier with its head set to rows of the output table.

  One token per class, as "0" and "1" in App. A.1 of Burns et al. 2023.

  Raises:
    ValueError: not one token id inside the vocabulary for each class.
  """
  embedding_VxD = transformer.output_table(params['transformer'])
  num_classes = params['head']['kernel'].shape[1]
  vocab_size = embedding_VxD.shape[0]
  inside = all(0 <= i < vocab_size for i in token_ids)
  if len(token_ids) != num_classes or not inside:
    raise errors.UserError(
      f'A head of {num_classes} classes needs as many token ids below '
      f'{vocab_size}; got {list(token_ids)}.'
    )
  kernel_DxC = embedding_VxD[jnp.asarray(token_ids)].T.astype(jnp.float32)
  return {**params, 'head': {'kernel': kernel_DxC}}
