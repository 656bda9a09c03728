"""Names of the classes of the tasks, for people: no result depends on them.

Another data set may have an entry here; without one its classes are numbers.
"""

from w2s_jax.tasks import multiple_choice
from w2s_jax.tasks import registry

_SENTIMENT = ('negative', 'positive')
_ANSWER = ('no', 'yes')
NAMES = {
  'amazon_polarity': _SENTIMENT,
  'customer_reviews': _SENTIMENT,
  'imdb': _SENTIMENT,
  'rotten_tomatoes': _SENTIMENT,
  'sst2': _SENTIMENT,
  'synthetic': _SENTIMENT,
  'tweet_eval_sentiment': _SENTIMENT,
  'twitter_sentiment': _SENTIMENT,
  'boolq': _ANSWER,
  'boolq_question_only': _ANSWER,
  'ethics_utilitarianism': _ANSWER,
  'ethics_virtue': _ANSWER,
  'paws': _ANSWER,
  'wic': _ANSWER,
  'anli_r2': ('not entailed', 'entailed'),
  'anthropic_hh': ('worse', 'better'),
  'clickbait': ('not clickbait', 'clickbait'),
  'cola': ('unacceptable', 'acceptable'),
  'comve': ('makes no sense', 'makes sense'),
  'creak': ('false', 'true'),
  'ethics_commonsense': ('not wrong', 'wrong'),
  'ethics_deontology': ('unreasonable', 'reasonable'),
  'ethics_justice': ('unreasonable', 'reasonable'),
  'rte': ('not entailed', 'entailed'),
  'tweet_eval_hate': ('not hateful', 'hateful'),
  'tweet_eval_irony': ('not ironic', 'ironic'),
  'tweet_eval_offensive': ('not offensive', 'offensive'),
}


def of(name: str | None) -> tuple[str, ...] | None:
  """Returns the names of the classes of a task in their order.

  None for a task without an entry, or without classes that all rows share. A
  task that is not known any more has none either.
  """
  task = registry.TASKS.get(name)
  if task is None or task.inputs == 'position':
    return None
  if task.inputs == 'pair':
    return ('first', 'second')
  if task.question is multiple_choice.without_answer:
    return ('wrong answer', 'right answer')
  return NAMES.get(name)


def or_numbers(
  name: str | None, num_classes: int, form: str = 'class {}'
) -> tuple[str, ...]:
  """As `of`; ('class 0', ...) where this many classes have no names."""
  names = of(name) or ()
  if len(names) == num_classes:
    return names
  return tuple(map(form.format, range(num_classes)))
