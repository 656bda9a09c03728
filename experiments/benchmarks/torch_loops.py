"""A weak-to-strong study as a plain loop of PyTorch and transformers.

The baseline of part c of benchmark.py: the same rows, weights, recipe and
evaluation as a study of configs/nlp.py, in the simplest code. A batch goes
through the model in one of two ways:

  one at a time: each row alone, the gradient that of the whole batch, as in the
    public weak-to-strong code with its minibatch of one
  padded: all rows at once, padded to the longest of this random batch

Both predict in padded batches, as the public code does. With `autocast` PyTorch
computes matmuls in bfloat16.
"""

import functools
import itertools
import math


def study(
  *,
  folder,
  models,
  texts,
  classes,
  max_length,
  eval_batch_size,
  autocast=False,
  **how,
):
  """Yields None after the imports, then the results of studies endlessly.

  Args:
    folder: of the weights and the tokenizer, as transformers reads them.
    models: {'weak': ..., 'strong': ...}, each with `num_layers`, whether
      `tables_train`, and what of a config's `train` is not about compiling.
    texts, classes: {'weak': ..., 'transfer': ..., 'test': ...}, rows of each.
    autocast: whether matmuls are in bfloat16.
    how: `padded`, and the `seed` of the order of rows.
  """
  import torch
  import transformers

  torch.set_num_threads(1)
  transformers.utils.logging.disable_progress_bar()
  transformers.utils.logging.set_verbosity_error()
  yield None
  while True:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = {
      name: tokenizer(rows, truncation=True, max_length=max_length)['input_ids']
      for name, rows in texts.items()
    }
    truth = {name: torch.eye(2)[classes[name]] for name in classes}
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
      outcome = _study(
        functools.partial(load, folder),
        models,
        tokens,
        truth,
        eval_batch_size=eval_batch_size,
        **how,
      )
    yield outcome


def _study(load, models, tokens, truth, *, eval_batch_size, **how):
  """Returns {'weak_accuracy': ..., 'weak_nll': ...}, as in results.jsonl."""
  outcome = {}

  def ask(model, name):
    return predict(model, tokens[name], batch_size=eval_batch_size)

  def evaluate(role, model):
    ask(model, 'validation')
    outcome.update(scores(role, ask(model, 'test'), truth['test']))

  def train(role, key, name, labels):
    fields = dict(models[key])
    model = load(fields.pop('num_layers'))
    fit(model, tokens[name], labels, **fields, **how)
    evaluate(role, model)
    return model

  evaluate('zero_shot', load(models['strong']['num_layers']))
  weak = train('weak', 'weak', 'weak', truth['weak'])
  weak_labels = ask(weak, 'transfer')
  train('student', 'strong', 'transfer', weak_labels)
  train('ceiling', 'strong', 'transfer', truth['transfer'])
  return outcome


def load(folder, num_layers):
  """Returns the first layers of an encoder with a zero head on its mean."""
  import torch
  import transformers

  trunk = transformers.AutoModel.from_pretrained(
    folder, add_pooling_layer=False, dtype=torch.float32
  )
  trunk.encoder.layer = trunk.encoder.layer[:num_layers]
  trunk.eval()  # no dropout, in training neither
  head = torch.nn.Linear(trunk.config.hidden_size, 2, bias=False)
  torch.nn.init.zeros_(head.weight)
  return torch.nn.ModuleDict({'trunk': trunk, 'head': head})


def logits_of(model, rows):
  """[B, 2] of token rows, padded to the longest of them."""
  import torch

  tokens = torch.nn.utils.rnn.pad_sequence(
    [torch.tensor(row) for row in rows], batch_first=True
  )
  lengths = torch.tensor([len(row) for row in rows])
  mask = torch.arange(tokens.shape[1])[None] < lengths[:, None]
  states = model['trunk'](tokens, attention_mask=mask).last_hidden_state
  pooled = (states * mask[:, :, None]).sum(1) / lengths[:, None]
  return model['head'](pooled).float()


def fit(
  model,
  tokens,
  labels,
  *,
  epochs,
  batch_size,
  learning_rate,
  warmup,
  weight_decay,
  clip_norm,
  tables_train,
  padded,
  seed,
):
  """Fine-tunes a model towards class probabilities [N, 2]."""
  import torch

  if not tables_train:
    for name, parameter in model.named_parameters():
      parameter.requires_grad_('_embeddings.' not in name)
  steps = epochs * math.ceil(len(tokens) / batch_size)
  trained = [p for p in model.parameters() if p.requires_grad]
  optimizer = torch.optim.AdamW(
    [
      {'params': [p for p in trained if p.ndim > 1]},
      {'params': [p for p in trained if p.ndim == 1], 'weight_decay': 0.0},
    ],
    lr=learning_rate,
    weight_decay=weight_decay,
    fused=True,  # a quarter of the time of the default
  )
  schedule = torch.optim.lr_scheduler.LambdaLR(
    optimizer, lambda step: rate(step, steps, round(warmup * steps))
  )
  for batch in batches(len(tokens), batch_size, epochs, seed):
    rows = [tokens[i] for i in batch]
    if padded:
      logits = logits_of(model, rows)
    else:
      logits = torch.cat([logits_of(model, [row]) for row in rows])
    loss = torch.nn.functional.cross_entropy(logits, labels[batch])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, clip_norm)
    optimizer.step()
    optimizer.zero_grad()
    schedule.step()


def rate(step, steps, warmup):
  """Returns the learning rate factor: linear warmup, then decay to 0."""
  if step < warmup:
    return (step + 1) / warmup
  return 1 - (step - warmup) / max(1, steps - warmup)


def batches(count, batch_size, epochs, seed):
  """Yields row numbers of each batch, shuffled anew in every epoch."""
  import torch

  generator = torch.Generator().manual_seed(seed)
  for _ in range(epochs):
    order = torch.randperm(count, generator=generator)
    yield from order.split(batch_size)


def predict(model, tokens, *, batch_size):
  """Returns class probabilities [N, 2] of all rows, in their order."""
  import torch

  rows = iter(tokens)
  with torch.no_grad():
    logits = []
    while batch := list(itertools.islice(rows, batch_size)):
      logits.append(logits_of(model, batch))
  return torch.cat(logits).softmax(-1)


def scores(role, probs, truth):
  """Returns accuracy and mean negative log-likelihood."""
  right = (probs.argmax(1) == truth.argmax(1)).float()
  nll = -(probs.log() * truth).sum(1)
  return {
    f'{role}_accuracy': float(right.mean()),
    f'{role}_nll': float(nll.mean()),
  }
