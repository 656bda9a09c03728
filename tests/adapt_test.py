"""Adaptation: trainable parameters, stored parameters, a study per method."""

import json
import pathlib
import shutil

import hf_heads_test
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax import adapt
from w2s_jax import batching
from w2s_jax import checkpoint
from w2s_jax import graph
from w2s_jax import predict
from w2s_jax import weak_labels
from w2s_jax.models import pretrained
from w2s_jax.models import transformer

import tiny

PARAMS = {
  'transformer': {
    'token_embed': {'embedding': jnp.ones((4, 3))},
    'layer_0': {'mlp': {'kernel': jnp.ones((3, 3)), 'bias': jnp.ones(3)}},
  },
  'head': {'kernel': jnp.ones((3, 2))},
}
LORA = {'rank': 2, 'alpha': 4.0, 'targets': 'attention/(query|value)/kernel'}


def test_split_and_merge_are_inverse():
  trainable, frozen = adapt.split(PARAMS, freeze='_embed/')
  assert list(frozen['transformer']) == ['token_embed']
  assert 'token_embed' not in trainable['transformer']
  merged = adapt.merge(trainable, frozen)
  assert jax.tree.structure(merged) == jax.tree.structure(PARAMS)


@pytest.mark.parametrize('freeze', ['no_such_layer', '.*'])
def test_freeze_must_match_some_but_not_all_parameters(freeze):
  with pytest.raises(ValueError, match='freeze'):
    adapt.split(PARAMS, freeze=freeze)


@pytest.mark.parametrize(
  'wrong, message',
  [
    ({'targets': 'attention'}, "'attention' must match kernels"),
    ({'targets': 'mlp'}, '2 parameters, 1 of them kernels'),
    ({'targets': '_embed'}, "see .'transformer/token_embed/embedding'"),
    ({'targets': 'mlp/kernel', 'rank': 0}, 'rank=0'),
  ],
)
def test_lora_errors_name_the_field(wrong, message):
  with pytest.raises(ValueError, match=message):
    adapt.split(PARAMS, lora=LORA | wrong)


def test_lora_starts_at_the_pretrained_model():
  lora = LORA | {'targets': 'mlp/kernel'}
  trainable, frozen = adapt.split(PARAMS, lora=lora)
  assert frozen == {'transformer': PARAMS['transformer']}
  assert trainable['head'] == PARAMS['head']
  merged = adapt.fold(adapt.merge(trainable, frozen))
  jax.tree.map(np.testing.assert_array_equal, merged, PARAMS)
  again, _ = adapt.split(PARAMS, lora=lora, seed=1)
  a_DxR, other_DxR = (
    x['transformer']['layer_0']['mlp']['kernel_lora_a']
    for x in (trainable, again)
  )
  assert a_DxR.shape == (3, 2) and not np.array_equal(a_DxR, other_DxR)


def test_lora_update_has_its_rank_and_scale():
  lora = LORA | {'targets': 'mlp/kernel', 'rank': 1}
  trainable, frozen = adapt.split(PARAMS, lora=lora)
  mlp = trainable['transformer']['layer_0']['mlp']
  mlp['kernel_lora_a'] = jnp.array([[1.0], [2.0], [3.0]])
  mlp['kernel_lora_b'] = jnp.array([[1.0, 0.0, -1.0]])
  folded = adapt.fold(adapt.merge(trainable, frozen))
  merged = folded['transformer']['layer_0']['mlp']
  np.testing.assert_allclose(
    merged['kernel'] - 1.0, 4.0 * np.outer([1, 2, 3], [1, 0, -1])
  )
  np.testing.assert_array_equal(merged['bias'], 1.0)


def with_factors(network, *, size, dtype='float32'):
  """Random parameters with factors whose updates of kernels are of a size."""
  params = tiny.random_params(network, tiny.one_device(), head=1.0)
  trainable, frozen = adapt.split(params, lora=LORA)
  rng = np.random.default_rng(0)

  def fill(path, x):
    if not path[-1].key.endswith(adapt.B):
      return x
    return jnp.asarray(rng.normal(0, size, x.shape), x.dtype)

  trainable = jax.tree_util.tree_map_with_path(fill, trainable)
  frozen = jax.tree.map(lambda x: x.astype(dtype), frozen)
  return adapt.merge(trainable, frozen)


def logits_of(network, params):
  batch = batching.assemble(tiny.rows(8), np.arange(8), 16, batch_size=8)
  return np.asarray(
    network.apply({'params': params}, batch['tokens'], batch['length'])
  )


def test_lora_of_activations_is_lora_of_kernels():
  params = with_factors(tiny.network(), size=0.1)
  logits = logits_of(tiny.network(), params)
  folded = logits_of(tiny.network(), adapt.fold(params))
  np.testing.assert_allclose(logits, folded, atol=1e-5)
  base = logits_of(tiny.network(), with_factors(tiny.network(), size=0))
  assert np.abs(logits - base).max() > 0.01


def test_lora_on_a_bfloat16_base_keeps_small_updates():
  """Added to a kernel they would be lost in its rounding."""
  network = tiny.network(param_dtype='bfloat16')

  def change(size, fold=lambda x: x):
    params = fold(with_factors(network, size=size, dtype='bfloat16'))
    return (logits_of(network, params) - base) / size

  base = logits_of(network, with_factors(network, size=0, dtype='bfloat16'))
  expected, small = change(1e-2), change(1e-5)
  assert np.linalg.norm(small - expected) < 0.05 * np.linalg.norm(expected)
  lost = change(1e-5, adapt.fold)
  assert np.linalg.norm(lost - expected) > 0.5 * np.linalg.norm(expected)


def test_lora_trains_only_its_targets_and_the_head(tmp_path):
  mesh = tiny.one_device()
  before = tiny.random_params(tiny.network(), mesh)
  before = jax.tree.map(np.asarray, before)
  after, _ = tiny.fit(tmp_path, mesh=mesh, lora=LORA)
  after = adapt.fold(after)
  changes = jax.tree.map(lambda x, y: np.asarray(x) - y, after, before)
  assert np.any(changes.pop('head')['kernel'])
  attention = changes['transformer']['layer_0']['attention']
  for name in ('query', 'value'):
    assert np.linalg.matrix_rank(attention[name].pop('kernel'), tol=1e-6) == 2
  assert not any(np.any(x) for x in jax.tree.leaves(changes))


# The studies below have one seed and these models.
DECODER = {
  'seeds': (1,),
  'models.weak.adapt.method': 'lora',
  'models.weak.weights': 'random:tiny-decoder',
  'models.strong.weights': 'random:tiny-decoder',
  'models.strong.num_layers': 1,
  'models.strong.adapt.probe.epochs': 5,
  'models.strong.adapt.shots': 3,
  'losses': ('xent',),
  'data.max_length': 24,
}
MODELS = 'weak', 'strong'  # keys of config.models
VERBALIZE = {'models.strong.head': 'verbalize'}


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A workdir with studies of several methods, run one after the other."""
  folder = tmp_path_factory.mktemp('methods')
  for method in ('probe', 'lp_ft'):
    fields = {'models.strong.adapt.method': method}
    both = {'losses': ('xent', 'logconf')}
    tiny.run(folder, **DECODER | fields | both)
  prompt = VERBALIZE | {
    'models.strong.adapt.method': 'prompt',
    'data.max_length': 96,
  }
  tiny.run(folder, **DECODER | prompt)
  return folder


def stage(workdir, start):
  (folder,) = pathlib.Path(workdir).glob(f'stages/{start}*')
  return folder


def stored(folder):
  return tiny.arrays(folder / 'predictions' / 'test.npz')['probs']


def test_result_rows_name_the_method(workdir):
  lines = (workdir / 'results.jsonl').read_text().splitlines()
  models = [json.loads(line)['strong_model'] for line in lines]
  names = [
    f'tiny-decoder-l1-{method}' for method in ('lp_ft', 'probe', 'prompt')
  ]
  assert sorted(models) == sorted(
    [*names, 'tiny-decoder-l1-lp_ft', 'tiny-decoder-l1-probe']
  )
  weak = {json.loads(line)['weak_model'] for line in lines}
  assert weak == {'tiny-decoder-l1-lora'}


def test_features_are_computed_once_of_the_rows_that_probes_read(workdir):
  features = tiny.arrays(
    stage(workdir, 'features-tiny-decoder-l1-') / 'features.npz'
  )
  # Validation, test and transfer: no probe reads the weak half.
  assert features['features'].shape == (32 + 64 + 64, 32)
  assert len(set(features['ids'].tolist())) == 32 + 64 + 64


@pytest.mark.parametrize('damaged', [False, True])
def test_features_of_another_study_are_used_unless_damaged(
  workdir, damaged, tmp_path
):
  old = stage(workdir, 'features-tiny-decoder-l1-')
  shutil.copytree(old, tmp_path / 'stages' / old.name)
  if damaged:
    (tmp_path / 'stages' / old.name / 'features.npz').write_bytes(b'')
  probe = {'models.strong.adapt.method': 'probe', 'data.splits.transfer': 32}
  tiny.run(tmp_path, **DECODER | probe)
  (new,) = [
    folder
    for folder in tmp_path.glob('stages/features-*')
    if folder.name != old.name
  ]
  summary = json.loads((new / 'DONE').read_text())['summary']
  computed = 32 + 64 + 32 if damaged else 0
  assert (summary['rows'], summary['rows_computed']) == (128, computed)
  features = {}
  for folder in (workdir / 'stages' / old.name, new):
    arrays = tiny.arrays(folder / 'features.npz')
    features[folder] = dict(zip(arrays['ids'], arrays['features']))
  for id_, row_D in features[new].items():
    expected_D = features[workdir / 'stages' / old.name][id_]
    np.testing.assert_allclose(row_D, expected_D, atol=1e-5)


def test_only_trained_parameters_are_stored_and_models_load_whole(workdir):
  """Probe and LoRA stages predict from texts, as full models do."""
  evaluated, _ = tiny.splits()
  for role in (
    'ceiling-tiny-decoder-l1-probe',
    'student-xent-tiny-decoder-l1-probe',
  ):
    folder = stage(workdir, role)
    assert list(checkpoint.load_params(folder / 'params')) == ['head']
    loaded = checkpoint.load_model(workdir, folder.name)
    probs_NxC = predict.predict_inputs(loaded, evaluated['test'].inputs)
    np.testing.assert_allclose(probs_NxC, stored(folder), atol=1e-5)
  for folder in workdir.glob('stages/weak-tiny-decoder-l1-lora-*'):
    kept = checkpoint.load_params(folder / 'params')
    size = sum(x.size for x in jax.tree.leaves(kept))
    assert size == 2 * (8 * 32 + 32 * 8 + 1) + 32 * 2
    loaded = checkpoint.load_model(workdir, folder.name)
    probs_NxC = predict.predict_inputs(loaded, evaluated['test'].inputs)
    np.testing.assert_allclose(probs_NxC, stored(folder), atol=1e-5)


@pytest.mark.parametrize('pretrained_is_named', [True, False])
def test_frozen_parameters_of_pretrained_weights_are_read_again(
  pretrained_is_named, tmp_path
):
  """They are not stored; models, weak labels and a rerun are as if they were.

  Random ones, which another device might draw otherwise, are stored.
  """
  fields = {'models.strong.weights': 'random:tiny-encoder'}
  if pretrained_is_named:
    network, tokenizer = hf_heads_test.model_of('bert')
    base = tiny.random_params(network, tiny.one_device())['transformer']
    folder = tmp_path / 'base'
    pretrained.save(folder, network.config, base, tokenizer=tokenizer)
    fields = {f'models.{key}.weights': str(folder) for key in MODELS}
  frozen = {f'models.{key}.train.freeze': '_embed/' for key in MODELS}
  tiny.run(tmp_path, **fields | frozen | {'models.strong.num_layers': 1})
  student = stage(tmp_path, 'student-')
  kept = checkpoint.load_params(student / 'params')['transformer']
  assert ('token_embed' in kept) != pretrained_is_named
  loaded = checkpoint.load_model(tmp_path, student.name)
  evaluated, _ = tiny.splits()
  probs_NxC = predict.predict_inputs(loaded, evaluated['test'].inputs)
  np.testing.assert_allclose(probs_NxC, stored(student), atol=1e-5)
  if pretrained_is_named:
    embed = loaded.params['transformer']['token_embed']['embedding']
    np.testing.assert_array_equal(embed, base['token_embed']['embedding'])
  before = shutil.copytree(student, tmp_path / 'before')
  (student / 'DONE').unlink()  # killed after its parameters were written
  tiny.run(tmp_path, **fields | frozen | {'models.strong.num_layers': 1})
  tiny.assert_same_results(before, student)


def test_probes_read_their_prompt_as_supervisor_and_as_student(tmp_path):
  fields = {
    f'models.{key}.{name}': value
    for key in ('weak', 'strong')
    for name, value in {
      'adapt.method': 'probe',
      'adapt.probe.epochs': 1,
      'prompt': 'is {text} good ?',
    }.items()
  }
  tiny.run(tmp_path, **DECODER | fields)
  evaluated, _ = tiny.splits()
  for role in ('weak', 'student-xent'):
    folder = stage(tmp_path, f'{role}-tiny-decoder-l1-probe')
    loaded = checkpoint.load_model(tmp_path, folder.name)
    prompt = json.loads((folder / 'prompt.json').read_text())
    assert prompt['template'] == 'is {text} good ?'
    probs_NxC = predict.predict_inputs(loaded, evaluated['test'].inputs)
    np.testing.assert_allclose(probs_NxC, stored(folder), atol=1e-5)
  (labels,) = tmp_path.glob('stages/labels-of-weak-*/weak_labels.npz')
  assert len(tiny.arrays(labels)['ids']) == 64


def test_lp_ft_starts_at_the_probe(workdir):
  fine_tuned = stage(workdir, 'ceiling-tiny-decoder-l1-lp_ft')
  probe = stage(workdir, 'ceiling-tiny-decoder-l1-probe')
  config = json.loads((fine_tuned / 'config.json').read_text())
  assert probe.name.endswith(config['start'][-1])
  head, start = (
    checkpoint.load_params(folder / 'params')['head']['kernel']
    for folder in (fine_tuned, probe)
  )
  cosine = np.vdot(head, start) / np.linalg.norm(head) / np.linalg.norm(start)
  assert 0.5 < cosine < 1


def test_only_the_prompt_of_the_student_has_weak_labels(workdir):
  _, slices = tiny.splits(seeds=(1,))
  transfer = slices[1][1]
  truth = dict(zip(transfer.inputs, transfer.label_probs_NxC.argmax(1)))
  (labels,) = {
    folder
    for folder in workdir.glob('stages/labels-of-weak-*')
    if json.loads((folder / 'config.json').read_text())['evaluation'][
      'max_length'
    ]
    == 96
  }
  predicted = tiny.arrays(labels / 'weak_labels.npz')
  predicted = weak_labels.join(
    transfer.ids, weak_labels.Labels(predicted['ids'], predicted['probs'])
  )
  weak = dict(zip(transfer.inputs, predicted.probs_NxC.argmax(1)))
  for role, known in (('student-xent', weak), ('ceiling', truth)):
    folder = stage(workdir, f'{role}-tiny-decoder-l1-prompt')
    prompt = json.loads((folder / 'prompt.json').read_text())
    ids = json.loads((folder / 'config.json').read_text())['model']['head_ids']
    assert len(prompt['examples']) == 3
    for text, answer in prompt['examples']:
      assert answer == ids[known[text]]
    shown = {answer for _, answer in prompt['examples']}
    assert shown == {ids[label] for label in set(known.values())}


@pytest.mark.parametrize('method', ['probe', 'lp_ft'])
def test_outline_has_the_stages_of_probing(workdir, method, tmp_path):
  fields = DECODER | {'models.strong.adapt.method': method}
  c = tiny.config(**fields)
  described = [x for each in tiny.study.outline(c).values() for x in each]
  stages = graph.in_order([stage for x in described for stage in x.stages])
  # zero_shot, weak, labels, features, student and ceiling.
  assert len(stages) == {'probe': 6, 'lp_ft': 8}[method]


def test_verbalizer_can_be_fine_tuned(tmp_path):
  tiny.run(tmp_path, **DECODER | VERBALIZE)
  folder = stage(tmp_path, 'ceiling-tiny-decoder-l1-')
  loaded = checkpoint.load_model(tmp_path, folder.name)
  assert list(loaded.params) == ['transformer']
  evaluated, _ = tiny.splits()
  texts = evaluated['test'].inputs
  probs_NxC = predict.predict_inputs(loaded, texts)
  np.testing.assert_allclose(probs_NxC, stored(folder), atol=1e-5)
  # By hand: the logits of two tokens after the prompt.
  tokens, _ = loaded.tokenizer.encode(texts[:1], max_length=24)
  trunk = transformer.Transformer(loaded.model.config)
  params = loaded.params['transformer']
  x_1xLxD = trunk.apply(
    {'params': params}, tokens[0][None], np.array([len(tokens[0])])
  )
  logits_V = transformer.next_token_logits(
    x_1xLxD[0, -1:], params, loaded.model.config
  )[0]
  chosen = logits_V[np.array(loaded.model.label_ids)]
  np.testing.assert_allclose(jax.nn.softmax(chosen), probs_NxC[0], atol=1e-5)


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'models.strong.adapt.method': 'magic'}, "method='magic' is not one of"),
    ({'models.strong.adapt.method': 'prompt'}, 'has a Classifier'),
    (
      VERBALIZE | {'models.strong.adapt.method': 'probe'},
      'has a Verbalizer',
    ),
    (
      VERBALIZE | {'models.strong.weights': 'random:tiny-encoder'},
      'verbalize.*decoders',
    ),
    (VERBALIZE | {'models.strong.prompt': 'no place'}, 'must have one'),
    (VERBALIZE | {'data.max_length': 1}, 'no room for a prompt'),
    (
      VERBALIZE
      | {'models.strong.adapt.method': 'prompt', 'data.max_length': 8},
      'prompt with 3 examples',
    ),
    ({'models.strong.head': 'guess'}, "head='guess'"),
    (
      {
        'models.strong.adapt.method': 'lora',
        'models.strong.adapt.lora.targets': 'bias',
      },
      'models.strong.train: adapt.lora.targets',
    ),
    ({'models.strong.train.accumulate': 3}, 'accumulate=3 pieces'),
    ({'models.strong.param_dtype': 'int8'}, "param_dtype='int8'"),
  ],
)
def test_config_errors_are_raised_before_training(fields, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    tiny.run(tmp_path, **DECODER | fields)
  assert not list(tmp_path.iterdir())
