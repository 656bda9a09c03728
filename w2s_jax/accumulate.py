"""The gradient of a batch that goes through the model in pieces."""

import functools

import jax
import jax.numpy as jnp

from w2s_jax import sharding


def value_and_grad(
  logits_of, mean_loss, targets, params, batch, *, pieces, by_row
):
  """((loss, agreement), gradients) of a batch, whatever the number of pieces.

  The activations of only one piece are in memory at a time.

  Args:
    logits_of: (params, batch, number of the piece) -> logits_RxK.
    mean_loss: (logits_RxK, *targets) -> (loss, agreement), shares of these rows
      in the means over the batch.
    targets: (batch) -> (labels, weight_R).
    params: float32, and so are the gradients.
    batch: dict of arrays [B, ...].
    pieces: number of them; divides B.
    by_row: whether the loss of a row depends on this row alone: then those of
      the pieces add up. Otherwise logits are computed twice: all of them first,
      for the loss of the whole batch and its gradient by them, and again for
      the share of each piece in the gradient by the parameters.
  """
  gradient = functools.partial(jax.value_and_grad, has_aux=True)

  def of_rows(params, batch, number):
    return mean_loss(logits_of(params, batch, number), *targets(batch))

  if pieces == 1:
    return gradient(of_rows)(params, batch, 0)

  def cut(x):
    """Of neighbouring rows each piece takes one, so all devices have work."""
    x = x.reshape(-1, pieces, *x.shape[1:]).swapaxes(0, 1)
    return sharding.constrain_batch(x, axis=1)

  numbered = jax.tree.map(cut, batch), jnp.arange(pieces)
  zeros = jax.tree.map(jnp.zeros_like, params)
  if by_row:

    def add_piece(sums, piece):
      return jax.tree.map(
        jnp.add, sums, gradient(of_rows)(params, *piece)
      ), None

    nothing = jnp.zeros(()), jnp.zeros(())
    sums, _ = jax.lax.scan(add_piece, (nothing, zeros), numbered)
    return sums

  # The name that JAX gives to what is computed twice: matmul_flops.py reads it.
  with jax.named_scope('rematted_computation'):
    logits = jax.lax.map(lambda piece: logits_of(params, *piece), numbered)
  # A row of the batch may be several rows of logits: the tokens of a text.
  rows_a_piece = len(batch['weight']) // pieces
  in_pieces = (pieces, rows_a_piece, -1, logits.shape[-1])
  logits_RxK = logits.reshape(in_pieces).swapaxes(0, 1)
  in_order = logits_RxK.shape
  values, grad_RxK = gradient(mean_loss)(
    logits_RxK.reshape(-1, in_order[-1]), *targets(batch)
  )
  by_logits = grad_RxK.reshape(in_order).swapaxes(0, 1).reshape(logits.shape)

  def add_share(grads, piece):
    numbered, by_logits = piece
    _, pull_back = jax.vjp(lambda p: logits_of(p, *numbered), params)
    return jax.tree.map(jnp.add, grads, *pull_back(by_logits)), None

  grads, _ = jax.lax.scan(add_share, zeros, (numbered, by_logits))
  return values, grads
