"""Plans for devices that are not attached, and counts of stages."""

import functools

import forked
import jax
import pytest

from configs import chess
from configs import nlp
from experiments.plan import ahead
from experiments.plan import plan as plan_lib
from experiments.plan import roofline
from w2s_jax import check_config
from w2s_jax import sharding
from w2s_jax import train
from w2s_jax.models import stacking

import tiny


def plan(*flags, config='nlp.py:debug'):
  """(exit status, what it printed) of experiments/plan/plan.py."""
  done = forked.run(
    tiny.ROOT / 'experiments' / 'plan' / 'plan.py',
    f'--config={tiny.ROOT}/configs/{config}',
    *flags,
  )
  return done.returncode, done.stdout + done.stderr


def test_a_plan_says_what_a_device_does():
  status, text = plan('--chip=h100', '--devices=8', '--mesh=fsdp=4,tensor=2')
  assert status == 0, text
  words = ' '.join(text.split())  # a title is as wide as its table
  assert '54,144 parameters on data=1, fsdp=4, tensor=2' in words
  for row in ('optimizer', 'peak memory', 'all-reduce', 'bound by', 'ceiling'):
    assert row in text


@pytest.mark.parametrize(
  'flags, message',
  [
    (['--chip=v7'], '--chip=v7 is not one of v4'),
    (['--chip=h100', '--mesh=fsdp'], "--mesh: 'fsdp' is not"),
    (['--chip=h100', '--devices=6', '--mesh=fsdp=4'], 'divide the 6 devices'),
    (
      ['--chip=h100', '--devices=8', '--mesh=tensor=8'],
      'mesh.tensor=8 does not divide the 4 attention heads',
    ),
    (
      ['--chip=h100', '--devices=3', '--mesh=fsdp=3'],
      'models.weak.train.batch_size=32 does not divide',
    ),
    (
      [
        *('--chip=h100', '--devices=7', '--mesh=tensor=7'),
        '--config.models.strong.weights=random:qwen2.5-0.5b',  # 14 heads
        '--config.models.weak.weights=random:qwen2.5-0.5b',
      ],
      'mesh.tensor=7 does not divide the 2 attention heads',
    ),
    (
      [
        *('--chip=h100', '--devices=24', '--mesh=fsdp=24'),
        '--config.models.weak.train.batch_size=48',
        '--config.models.strong.train.batch_size=48',
      ],
      'models.weak: mesh.fsdp=24, mesh.tensor=1 do not divide transformer/',
    ),
    (
      ['--chip=h100', '--config.models.weak.adapt.method=probe'],
      "models.weak.adapt.method='probe': there are plans for",
    ),
  ],
)
def test_what_does_not_divide_is_named(flags, message):
  status, text = plan(*flags)
  assert status == 1 and message in text.replace('\n', ' '), text


def test_sides_of_a_pod():
  assert ahead.pod(256, 2) == (16, 16)
  assert ahead.pod(8, 2) == (2, 4)
  assert ahead.pod(256, 3) == (4, 8, 8)
  assert ahead.pod(64, 3) == (4, 4, 4)


def test_arrays_of_a_program():
  assert roofline.array_bytes('(bf16[8,128]{1,0}, f32[4])') == [2048, 16]
  assert roofline.array_bytes('s32[]') == [4]


HLO = """
%body (x: f32[8]) -> f32[8] {
  %g = f32[8]{0} all-gather(%x), replica_groups={{0,1},{2,3}}, dimensions={0}
}
ENTRY %main (x: f32[8]) -> f32[8] {
  %w = f32[8] while(%x), body=%body, config={"known_trip_count":{"n":"3"}}
  %r = bf16[4,4]{1,0} all-reduce(%w), replica_groups=[1,4]<=[4], to_apply=%add
}
"""


def test_communication_in_a_loop_counts_as_often_as_it_turns():
  found, sent = roofline.communication(HLO)
  assert found == {'all-gather': (3, 3 * 32), 'all-reduce': (1, 32)}
  assert sent == 3 * 32 * 1 / 2 + 2 * 32 * 3 / 4


OF_TPU = """
%body (x: f32[8]) -> f32[8] {
  %g = f32[8]{0} all-gather(%x), replica_groups={{0,1},{2,3}}, dimensions={0}
}
%condition (x: s32[]) -> pred[] {
  %c = s32[]{:T(128)} constant(24)
  ROOT %lt = pred[]{:T(512)} compare(%x, %c), direction=LT
}
ENTRY %main (x: f32[8]) -> f32[8] {
  %w = f32[8] while(%x), condition=%condition, body=%body
}
"""


def test_the_turns_of_a_loop_are_read_from_its_condition():
  assert roofline.communication(OF_TPU)[0] == {'all-gather': (24, 24 * 32)}


GROUPS = """
%all-reduce-scatter.1 (x: f32[8]) -> f32[2] {
  %r = f32[8]{0} all-reduce(%x), replica_groups=mesh['a'=2,'b'=4] {'b'}
}
ENTRY %main (x: f32[8]) -> f32[2] {
  %f = f32[2] fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
  %s = f32[2] reduce-scatter(%f), replica_groups=[2,4]<=[8], dimensions={0}
  %p = (f32[4], f32[4], u32[]) collective-permute-start(%s), pairs={{0,1}}
}
"""


def test_a_gradient_that_is_scattered_is_sent_once():
  found, sent = roofline.communication(GROUPS)
  assert found == {'reduce-scatter': (2, 64), 'collective-permute': (1, 16)}
  assert sent == 2 * 32 * 3 / 4 + 16


KERNELS = """
%body (x: bf16[2,4,128,64]) -> bf16[2,4,128,64] {
  %splash_mha_fwd_residuals.1 = (f32[2,128,128], bf16[2,4,128,64]) custom-call(\
%c, %q, %k, %k), custom_call_target="tpu_custom_call", \
operand_layout_constraints={s8[1,1,1]{2,1,0}, bf16[2,4,128,64]{3,2,1,0}, \
bf16[2,1,256,64]{3,2,1,0}, bf16[2,1,256,64]{3,2,1,0}, s32[128,128]{1,0}}
}
ENTRY %main (x: bf16[2,4,128,64]) -> bf16[2,4,128,64] {
  %w = bf16[2,4,128,64] while(%x), body=%body, b={"known_trip_count":{"n":"3"}}
  %splash_mha_dq_no_residuals.2 = (bf16[2,4,128,64]) custom-call(%q, %k), \
custom_call_target="tpu_custom_call", \
operand_layout_constraints={bf16[2,4,128,64]{3,2,1,0}, bf16[2,1,256,64]{2,1,0}}
}
"""


def test_operations_of_kernels_count_too():
  matmul = 2 * (2 * 4 * 128 * 64) * 256
  assert roofline.kernel_flops(KERNELS) == (3 * 2 + 3) * matmul
  assert roofline.kernel_flops(HLO) == 0


@pytest.fixture(scope='module')
def planned():
  """Of accumulated pieces: (config, mesh, model, plan) of the debug student."""

  def made(accumulate):
    c = nlp.get_config('debug')
    c.models.strong.train.accumulate = accumulate
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    model = check_config.build_model(
      c.models.strong, 'strong', c.task, c.data, mesh
    )
    return c, mesh, model, ahead.make_plan(model, c, 'strong', mesh)

  return functools.cache(made)


def test_bytes_are_those_of_the_real_state(planned):
  c, mesh, model, plan = planned(1)
  recipe = ahead.recipe_of(c, c.models.strong.train)
  init_state, _ = train.make_step(model.network, recipe, mesh)
  with jax.set_mesh(mesh):
    state = init_state(model.init(mesh, 0))

  def held(tree):
    return sum(
      x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree)
    )

  assert plan.parameters == held(state.params)
  assert plan.optimizer == held(state.opt_state)


def test_pieces_cost_one_more_forward_pass(planned):
  whole = planned(1)[-1].steps['training']
  pieces = planned(4)[-1].steps['training']
  assert 1.2 < pieces.flops / whole.flops < 1.5
  assert pieces.temporary < whole.temporary


def test_a_loop_over_layers_counts_as_often_as_it_turns(monkeypatch):
  c = nlp.get_config('debug')
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  c.models.strong.num_layers = -1
  model = check_config.build_model(
    c.models.strong, 'strong', c.task, c.data, mesh
  )
  model = model._replace(network=ahead.with_layers(model.network, 6))
  apart = ahead.make_plan(model, c, 'strong', mesh)
  monkeypatch.setattr(stacking, 'MIN_LAYERS', 3)
  looped = ahead.make_plan(model, c, 'strong', mesh)
  assert looped[:2] == apart[:2]
  for name, step in apart.steps.items():
    assert looped.steps[name].flops == pytest.approx(step.flops, rel=0.02)


def counts(stages, role, key):
  (found,) = [x for x in stages if (x.role, x.key) == (role, key)]
  return found.count, found.steps['training'], found.steps['prediction']


def test_work_of_a_study():
  c = nlp.get_config('debug')  # 256 and 1,024 rows, batches of 32, 4 epochs
  stages = plan_lib.stages_of(c, predict_batch=64)
  asked = 1 + 8  # 64 validation rows, 512 test rows
  assert counts(stages, 'zero_shot', 'strong') == (1, 0, asked)
  assert counts(stages, 'weak', 'weak') == (2, 2 * 4 * 8, 2 * asked)
  assert counts(stages, 'labels', 'weak') == (2, 0, 2 * 16)
  assert counts(stages, 'student', 'strong') == (4, 4 * 4 * 32, 4 * asked)
  assert counts(stages, 'ceiling', 'strong') == (2, 2 * 4 * 32, 2 * asked)


def test_a_model_in_the_middle_of_a_chain_labels_too():
  c = chess.get_config('debug')
  c.students = ('xs>s>m',)
  c.data.splits.update(weak=64, transfer=64, validation=64, test=64)
  stages = plan_lib.stages_of(c, predict_batch=64)
  seeds = len(c.seeds)
  assert counts(stages, 'labels', 's') == (seeds, 0, seeds)
  assert counts(stages, 'student', 's')[0] == seeds
  assert ('ceiling', 's') not in {(x.role, x.key) for x in stages}


def test_no_device_holds_a_whole_embedding_table(planned, monkeypatch):
  c, mesh, model, _ = planned(1)
  texts, read = [], roofline.read

  def kept(compiled, **kwargs):
    texts.append(compiled.as_text())
    return read(compiled, **kwargs)

  monkeypatch.setattr(roofline, 'read', kept)
  ahead.compiled(model.network, c, 'strong', mesh)
  config = model.network.config
  for text in texts:
    assert f'[{config.vocab_size},{config.embed_dim // 4}]' in text
    assert f'[{config.vocab_size},{config.embed_dim}]' not in text
