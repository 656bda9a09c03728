import dataclasses
import functools
import hashlib
import json
import math
import os

import flax.traverse_util
import hf_families_test
import jax
import numpy as np
import pytest
import safetensors.numpy

from w2s_jax import digests
from w2s_jax import sharding
from w2s_jax.models import pretrained
from w2s_jax.models import stored_tensors
from w2s_jax.models import tokenizers
from w2s_jax.models import transformer

D, F, V, P, HEADS, LAYERS = 12, 20, 30, 10, 3, 3
TOKENS_BxL = np.random.default_rng(1).integers(0, V, (3, 8)).astype(np.int32)
LENGTHS = np.array([8, 1, 5])

CONFIGS = {
  'bert': dict(
    model_type='bert',
    vocab_size=V,
    max_position_embeddings=P,
    hidden_size=D,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    intermediate_size=F,
    hidden_act='gelu',
    layer_norm_eps=1e-12,
    type_vocab_size=2,
  ),
  'gpt2': dict(
    model_type='gpt2',
    vocab_size=V,
    n_positions=P,
    n_embd=D,
    n_layer=LAYERS,
    n_head=HEADS,
    n_inner=F,
    activation_function='gelu_new',
    layer_norm_epsilon=1e-5,
  ),
}
FAMILIES = pytest.mark.parametrize('family', ['bert', 'gpt2'])


def bert_shapes():
  shapes = {
    'embeddings.word_embeddings.weight': (V, D),
    'embeddings.position_embeddings.weight': (P, D),
    'embeddings.token_type_embeddings.weight': (2, D),
    'embeddings.LayerNorm.weight': (D,),
    'embeddings.LayerNorm.bias': (D,),
    'pooler.dense.weight': (D, D),
    'pooler.dense.bias': (D,),
  }
  for i in range(LAYERS):
    layer = f'encoder.layer.{i}.'
    for name, out_in in {
      'attention.self.query': (D, D),
      'attention.self.key': (D, D),
      'attention.self.value': (D, D),
      'attention.output.dense': (D, D),
      'intermediate.dense': (F, D),
      'output.dense': (D, F),
    }.items():
      shapes[f'{layer}{name}.weight'] = out_in
      shapes[f'{layer}{name}.bias'] = out_in[:1]
    for name in ('attention.output.LayerNorm', 'output.LayerNorm'):
      shapes[f'{layer}{name}.weight'] = shapes[f'{layer}{name}.bias'] = (D,)
  return shapes


def gpt2_shapes():
  shapes = {
    'wte.weight': (V, D),
    'wpe.weight': (P, D),
    'ln_f.weight': (D,),
    'ln_f.bias': (D,),
  }
  for i in range(LAYERS):
    for name, in_out in {
      'attn.c_attn': (D, 3 * D),
      'attn.c_proj': (D, D),
      'mlp.c_fc': (D, F),
      'mlp.c_proj': (F, D),
    }.items():
      shapes[f'h.{i}.{name}.weight'] = in_out
      shapes[f'h.{i}.{name}.bias'] = in_out[1:]
    for name in ('ln_1', 'ln_2'):
      shapes[f'h.{i}.{name}.weight'] = shapes[f'h.{i}.{name}.bias'] = (D,)
    shapes[f'h.{i}.attn.bias'] = (1, 1, P, P)
  return shapes


def random_tensors(family):
  rng = np.random.default_rng(0)
  shapes = {'bert': bert_shapes, 'gpt2': gpt2_shapes}[family]()
  return {
    name: rng.normal(scale=0.3, size=shape).astype(np.float32)
    for name, shape in shapes.items()
  }


def write_folder(folder, family, tensors, **changes):
  folder.mkdir(exist_ok=True)
  config = {**CONFIGS[family], **changes}
  (folder / 'config.json').write_text(json.dumps(config))
  safetensors.numpy.save_file(tensors, folder / 'model.safetensors')
  return folder


def run(config, params, tokens_BxL=TOKENS_BxL, length_B=LENGTHS):
  model = transformer.Transformer(config)
  return jax.jit(model.apply)({'params': params}, tokens_BxL, length_B)


# An independent forward in NumPy, one row without padding at a time.


def norm(x_LxD, tensors, name, eps):
  centered_LxD = x_LxD - x_LxD.mean(axis=1, keepdims=True)
  scale_Lx1 = np.sqrt((centered_LxD**2).mean(axis=1, keepdims=True) + eps)
  weight_D, bias_D = tensors[f'{name}.weight'], tensors[f'{name}.bias']
  return centered_LxD / scale_Lx1 * weight_D + bias_D


def attend(q_LxD, k_LxD, v_LxD, *, causal):
  width, out = D // HEADS, []
  for h in range(HEADS):
    part = slice(h * width, (h + 1) * width)
    scores_LxL = q_LxD[:, part] @ k_LxD[:, part].T / math.sqrt(width)
    if causal:
      scores_LxL = np.where(np.tri(len(scores_LxL)), scores_LxL, -np.inf)
    weights_LxL = np.exp(scores_LxL)
    weights_LxL /= weights_LxL.sum(axis=1, keepdims=True)
    out.append(weights_LxL @ v_LxD[:, part])
  return np.concatenate(out, axis=1)


def bert_forward(t, tokens_L, num_layers):
  def linear(x, name):
    return x @ t[f'{name}.weight'].T + t[f'{name}.bias']

  x = t['embeddings.word_embeddings.weight'][tokens_L]
  x = x + t['embeddings.position_embeddings.weight'][: len(tokens_L)]
  x = x + t['embeddings.token_type_embeddings.weight'][0]
  x = norm(x, t, 'embeddings.LayerNorm', 1e-12)
  for i in range(num_layers):
    layer = f'encoder.layer.{i}.'
    qkv = [
      linear(x, f'{layer}attention.self.{p}') for p in ('query', 'key', 'value')
    ]
    x = x + linear(attend(*qkv, causal=False), layer + 'attention.output.dense')
    x = norm(x, t, layer + 'attention.output.LayerNorm', 1e-12)
    hidden = linear(x, layer + 'intermediate.dense')
    hidden *= 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    x = x + linear(hidden, layer + 'output.dense')
    x = norm(x, t, layer + 'output.LayerNorm', 1e-12)
  return x


def gpt2_forward(t, tokens_L, num_layers):
  def conv1d(x, name):
    return x @ t[f'{name}.weight'] + t[f'{name}.bias']

  x = t['wte.weight'][tokens_L] + t['wpe.weight'][: len(tokens_L)]
  for i in range(num_layers):
    fused = conv1d(norm(x, t, f'h.{i}.ln_1', 1e-5), f'h.{i}.attn.c_attn')
    qkv = fused[:, :D], fused[:, D : 2 * D], fused[:, 2 * D :]
    x = x + conv1d(attend(*qkv, causal=True), f'h.{i}.attn.c_proj')
    hidden = conv1d(norm(x, t, f'h.{i}.ln_2', 1e-5), f'h.{i}.mlp.c_fc')
    inner = math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)
    x = x + conv1d(hidden * 0.5 * (1 + np.tanh(inner)), f'h.{i}.mlp.c_proj')
  return norm(x, t, 'ln_f', 1e-5)


@FAMILIES
@pytest.mark.parametrize('num_layers', [None, 0, 1, LAYERS])
def test_matches_numpy(family, num_layers, tmp_path):
  tensors = random_tensors(family)
  folder = write_folder(tmp_path, family, tensors)
  config, params = pretrained.load(folder, num_layers=num_layers)
  assert config.num_layers == (LAYERS if num_layers is None else num_layers)
  states_BxLxD = run(config, params)
  forward = {'bert': bert_forward, 'gpt2': gpt2_forward}[family]
  for states_LxD, tokens_L, length in zip(states_BxLxD, TOKENS_BxL, LENGTHS):
    expected_LxD = forward(tensors, tokens_L[:length], config.num_layers)
    np.testing.assert_allclose(states_LxD[:length], expected_LxD, atol=1e-4)


@FAMILIES
def test_prefix_shards_half_precision_and_place(family, tmp_path):
  tensors = random_tensors(family)
  whole = write_folder(tmp_path / 'whole', family, tensors)
  prefix = {'bert': 'bert.', 'gpt2': 'transformer.'}[family]
  renamed = {prefix + name: x for name, x in tensors.items()}
  shards = [{}, {}]
  for i, (name, tensor) in enumerate(renamed.items()):
    shards[i % 2][name] = tensor.astype(jax.numpy.bfloat16)
  folder = write_folder(tmp_path / 'shards', family, shards[0])
  (folder / 'model.safetensors').rename(folder / 'model-1.safetensors')
  safetensors.numpy.save_file(shards[1], folder / 'model-2.safetensors')
  files = {n: f'model-{i + 1}.safetensors' for i in (0, 1) for n in shards[i]}
  index = folder / 'model.safetensors.index.json'
  index.write_text(json.dumps({'weight_map': files}))

  seen = {}

  def place(path, array):
    seen[path] = array.shape
    return jax.device_put(array[...], jax.devices()[3])

  config, params = pretrained.load(folder, place=place)
  assert seen == pretrained.parameter_shapes(config)
  _, expected = pretrained.load(whole)
  for x, y in zip(jax.tree.leaves(params), jax.tree.leaves(expected)):
    assert x.dtype == np.float32 and x.devices() == {jax.devices()[3]}
    np.testing.assert_allclose(x, y, rtol=2**-8)


@FAMILIES
def test_disagreement_is_an_error(family, tmp_path):
  tensors = random_tensors(family)
  name = {'bert': 'encoder.layer.2.output.dense', 'gpt2': 'h.2.mlp.c_proj'}
  name = name[family] + '.bias'
  beyond = name.replace('2', str(LAYERS))
  for changed, message in [
    (
      {**tensors, 'other.weight': np.ones(2)},
      "unexpected tensors: .'other.weight'",
    ),
    ({**tensors, beyond: tensors[name]}, f"unexpected tensors: .'{beyond}'"),
    (
      {n: x for n, x in tensors.items() if n != name},
      "parameters without a tensor: .'layer_2/mlp/down/bias'",
    ),
    ({**tensors, name: np.ones(D + 1)}, f'{name} has the shape .13,.*12,'),
  ]:
    folder = write_folder(tmp_path, family, changed)
    with pytest.raises(ValueError, match=message):
      pretrained.load(folder)


def test_bad_folder_is_named(tmp_path):
  tensors = random_tensors('gpt2')
  folder = write_folder(tmp_path, 'gpt2', tensors)
  for num_layers in (-1, LAYERS + 1):
    with pytest.raises(ValueError, match=f'num_layers={num_layers}, but'):
      pretrained.load(folder, num_layers=num_layers)
  weights = folder / 'model.safetensors'
  data = weights.read_bytes()
  for size in (5, 100, len(data) - 1):
    weights.write_bytes(data[:size])
    with pytest.raises(ValueError, match='model.safetensors is damaged'):
      pretrained.load(folder)
  weights.unlink()
  with pytest.raises(FileNotFoundError, match='model.safetensors not found'):
    pretrained.load(folder)
  (folder / 'config.json').write_text('{')
  with pytest.raises(ValueError, match='config.json is not JSON'):
    pretrained.load(folder)
  (folder / 'config.json').unlink()
  with pytest.raises(FileNotFoundError, match='config.json not found'):
    pretrained.load(folder)


@pytest.mark.parametrize(
  'family, changes, message',
  [
    ('bert', dict(hidden_act='xielu'), "hidden_act = 'xielu'.*'gelu'"),
    (
      'bert',
      dict(position_embedding_type='relative_key'),
      "position_embedding_type = 'relative_key'.*'absolute'",
    ),
    ('gpt2', dict(scale_attn_weights=False), 'scale_attn_weights = False'),
    ('gpt2', dict(n_head=None), 'lacks n_head'),
  ],
)
def test_unsupported_config_is_an_error(family, changes, message, tmp_path):
  folder = write_folder(tmp_path, family, {}, **changes)
  with pytest.raises(ValueError, match=message):
    pretrained.read_config(folder)


def test_fingerprint_follows_the_contents(tmp_path):
  tensors = random_tensors('gpt2')
  first = write_folder(tmp_path / 'first', 'gpt2', tensors)
  second = write_folder(tmp_path / 'second', 'gpt2', tensors)
  assert pretrained.fingerprint(first) == pretrained.fingerprint(second)
  (second / 'tokenizer.json').write_text('{}')
  assert pretrained.fingerprint(first) != pretrained.fingerprint(second)
  (second / 'tokenizer.json').unlink()
  tensors['ln_f.bias'][0] += 1
  write_folder(second, 'gpt2', tensors)
  assert pretrained.fingerprint(first) != pretrained.fingerprint(second)


def test_fingerprint_stays_what_it_is_in_stage_keys(tmp_path, monkeypatch):
  monkeypatch.setenv('W2S_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setattr(digests, '_SMALL', 0)
  folder = write_folder(tmp_path / 'model', 'gpt2', random_tensors('gpt2'))
  (folder / 'tokenizer.json').write_text('{}')
  total = hashlib.sha256()
  for name in ('config.json', 'tokenizer.json', 'model.safetensors'):
    total.update(hashlib.sha256((folder / name).read_bytes()).digest())
    os.utime(folder / name, (1e9, 1e9))
  for _ in range(2):
    assert pretrained.fingerprint(folder) == total.hexdigest()
  assert len(list((tmp_path / 'cache' / 'digests').iterdir())) == 3


# Every family, by what `save` writes.


def random_trunk(config, dtype='float32'):
  rng = np.random.default_rng(0)
  flat = {
    path: jax.numpy.asarray(rng.normal(size=shape), dtype)
    for path, shape in pretrained.parameter_shapes(config).items()
  }
  return flax.traverse_util.unflatten_dict(flat, sep='/')


def same(found, wanted):
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


EACH = pytest.mark.parametrize('family', hf_families_test.TINY)


@EACH
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_saved_and_loaded_to_the_bit(family, dtype, tmp_path):
  config = hf_families_test.TINY[family]
  trunk = random_trunk(config, dtype)
  tokenizer = tokenizers.WordHash(config.vocab_size)
  pretrained.save(tmp_path, config, trunk, tokenizer=tokenizer)
  fields = json.loads((tmp_path / 'config.json').read_text())
  assert fields['torch_dtype'] == dtype and fields['eos_token_id'] == 0
  found_config, found = pretrained.load(tmp_path, param_dtype=dtype)
  assert found_config == dataclasses.replace(config, param_dtype=dtype)
  same(found, trunk)
  assert tokenizers.load(tmp_path).vocab_size == config.vocab_size
  config, cut = pretrained.load(tmp_path, num_layers=1)
  same(
    cut['layer_0'],
    jax.tree.map(lambda x: x.astype('float32'), trunk['layer_0']),
  )
  assert set(cut) == set(trunk) - {'layer_1', 'layer_2', 'layer_3'}


@EACH
def test_shards_hold_what_one_file_holds(family, tmp_path):
  config = hf_families_test.TINY[family]
  trunk = random_trunk(config)
  largest = max(x.nbytes for x in jax.tree.leaves(trunk))
  pretrained.save(tmp_path, config, trunk, shard_bytes=3 * largest)
  index = json.loads((tmp_path / 'model.safetensors.index.json').read_text())
  files = sorted(tmp_path.glob('*.safetensors'))
  assert len(files) > 1 and not (tmp_path / 'model.safetensors').exists()
  assert {file.name for file in files} == set(index['weight_map'].values())
  assert all(file.stat().st_size < 3 * largest + 5000 for file in files)
  same(pretrained.load(tmp_path)[1], trunk)
  pretrained.save(tmp_path, config, trunk)  # over them
  same(pretrained.load(tmp_path)[1], trunk)


def test_a_head_is_in_the_last_shard(tmp_path):
  config = hf_families_test.TINY['llama']
  score_CxD = np.arange(32, dtype=np.float32).reshape(2, 16)
  pretrained.save(
    tmp_path,
    config,
    random_trunk(config),
    shard_bytes=4000,
    fields={'architectures': ['Other']},
    head={'score.weight': score_CxD},
  )
  index = json.loads((tmp_path / 'model.safetensors.index.json').read_text())
  last = sorted(set(index['weight_map'].values()))[-1]
  assert index['weight_map']['score.weight'] == last
  tensors = safetensors.numpy.load_file(tmp_path / last)
  np.testing.assert_array_equal(tensors['score.weight'], score_CxD)
  fields = json.loads((tmp_path / 'config.json').read_text())
  assert fields['architectures'] == ['Other']
  assert fields['model_type'] == 'llama'


@EACH
def test_disagreement_of_any_family_is_an_error(family, tmp_path):
  config = hf_families_test.TINY[family]
  trunk = random_trunk(config)
  pretrained.save(tmp_path, config, trunk)
  path = tmp_path / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  for name in list(tensors)[:: 1 + len(tensors) // 3]:
    fewer = {k: x for k, x in tensors.items() if k != name}
    safetensors.numpy.save_file(fewer, path)
    with pytest.raises(ValueError, match='parameters without a tensor: .*/'):
      pretrained.load(tmp_path)
    shape = tensors[name].shape
    longer = np.zeros((shape[0] + 1, *shape[1:]), np.float32)
    safetensors.numpy.save_file({**tensors, name: longer}, path)
    with pytest.raises(
      ValueError, match=f'{name} has the shape .{len(longer)}'
    ):
      pretrained.load(tmp_path)
  more = {**tensors, 'model.layers.0.self_attn.sinks': np.ones(2, np.float32)}
  safetensors.numpy.save_file(more, path)
  with pytest.raises(ValueError, match='unexpected tensors: .*self_attn.sinks'):
    pretrained.load(tmp_path)
  with pytest.raises(
    ValueError, match='config or params but not of both: .*final'
  ):
    pretrained.save(tmp_path, config, {**trunk, 'final': trunk['token_embed']})


@pytest.fixture
def parts(monkeypatch):
  """(tensor, shape) of each part that is read."""
  parts, read = [], stored_tensors.Tensor.__getitem__

  def record(tensor, index):
    part = read(tensor, index)
    parts.append((tensor, part.shape))
    return part

  monkeypatch.setattr(stored_tensors.Tensor, '__getitem__', record)
  return parts


def test_each_fused_tensor_is_read_once(tmp_path, parts):
  config = hf_families_test.TINY['gpt_neox']
  pretrained.save(tmp_path, config, random_trunk(config))
  pretrained.load(tmp_path, num_layers=1)
  names = [tensor.name for tensor, _ in parts]
  assert len(names) == len(set(names))
  assert not any('layers.1' in name for name in names)


@pytest.mark.parametrize('axis', ['fsdp', 'tensor'])
def test_a_process_reads_what_its_devices_hold(axis, tmp_path, parts):
  """One of two processes, which owns the first of two devices."""
  config = hf_families_test.TINY['llama']
  trunk = random_trunk(config)
  pretrained.save(tmp_path, config, trunk)
  mesh = sharding.make_mesh(devices=jax.devices()[:2], **{axis: 2})
  whole = flax.traverse_util.flatten_dict(trunk, sep='/')

  def place(path, array):
    place = sharding.parameter_sharding(mesh, path, array.shape)
    index = place.devices_indices_map(array.shape)[jax.devices()[0]]
    np.testing.assert_array_equal(array[index], whole[path][index])
    return np.zeros(array.shape, array.dtype)

  pretrained.load(tmp_path, place=place)
  matrices = 0
  for tensor, shape in parts:
    share = 2 if len(tensor.shape) == 2 else 1  # norms are on every device
    assert share * math.prod(shape) == math.prod(tensor.shape), tensor.name
    matrices += share == 2
  assert matrices == 1 + (not config.tied) + 7 * config.num_layers


def test_a_sharded_model_is_the_same_to_the_bit(tmp_path, parts):
  config = hf_families_test.TINY['llama']
  trunk = random_trunk(config)
  pretrained.save(tmp_path, config, trunk)
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  _, found = pretrained.load(
    tmp_path, place=functools.partial(sharding.place_parameter, mesh)
  )
  same(found, trunk)
  for x in jax.tree.leaves(found):
    assert x.sharding.mesh == mesh
  # Replicas of a part are read once.
  size = sum(math.prod(shape) for _, shape in parts)
  assert size == sum(x.size for x in jax.tree.leaves(trunk))


def test_a_tied_output_that_is_stored_again_is_let_be(tmp_path):
  config = hf_families_test.TINY['qwen2']
  trunk = random_trunk(config)
  pretrained.save(tmp_path, config, trunk)
  path = tmp_path / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  tensors['lm_head.weight'] = tensors['model.embed_tokens.weight']
  safetensors.numpy.save_file(tensors, path)
  same(pretrained.load(tmp_path)[1], trunk)


def test_old_names_of_bert(tmp_path):
  tensors = random_tensors('bert')
  wanted = pretrained.load(write_folder(tmp_path, 'bert', tensors))[1]
  old = {
    name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace(
      'LayerNorm.bias', 'LayerNorm.beta'
    ): x
    for name, x in tensors.items()
  }
  assert old.keys() != tensors.keys()
  same(pretrained.load(write_folder(tmp_path, 'bert', old))[1], wanted)
