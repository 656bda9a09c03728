"""Names of classes belong to tasks that are there."""

from w2s_jax.tasks import class_names
from w2s_jax.tasks import registry


def test_every_name_is_of_a_task_and_used():
  assert class_names.NAMES.keys() <= registry.TASKS.keys()
  for name, classes in class_names.NAMES.items():
    assert len(set(classes)) == registry.TASKS[name].num_classes
    assert class_names.of(name) == classes


def test_kinds_of_tasks_have_names_of_their_own():
  assert class_names.of('rotten_tomatoes') == ('negative', 'positive')
  assert class_names.of('sciq') == ('wrong answer', 'right answer')
  assert class_names.of('vader_pairs') == ('first', 'second')
  assert class_names.of('chess_puzzles') is None
  assert class_names.of('a task of another version') is None


def test_classes_without_names_have_numbers():
  assert class_names.or_numbers('sst2', 2) == ('negative', 'positive')
  assert class_names.or_numbers('sst2', 3) == ('class 0', 'class 1', 'class 2')
  for name in (None, 'chess_puzzles', 'a task of another version'):
    assert class_names.or_numbers(name, 2) == ('class 0', 'class 1')


def test_a_row_has_the_class_that_is_named():
  convert = {name: registry.TASKS[name].convert for name in class_names.NAMES}
  rows = {
    'rte': ({'premise': 'p', 'hypothesis': 'h', 'label': 0}, 'entailed'),
    'creak': ({'sentence': 's', 'entity': 'e', 'label': 'true'}, 'true'),
    'comve': ({'sent0': 'a', 'sent1': 'b', 'label': 0}, 'makes no sense'),
    'boolq': ({'question': 'q', 'passage': 'p', 'answer': True}, 'yes'),
  }
  for name, (row, expected) in rows.items():
    *_, label = convert[name](row)[0]
    assert class_names.of(name)[label] == expected
